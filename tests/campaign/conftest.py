"""The ground that campaigns are fought on, made once a session and copied for each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.campaign.ground import WRITING, Command, laid_out, ran, results
from tests.campaign.test_readers import profile

_FLEET = b"[[device]]\n" + profile().replace(b"[source]", b"[device.source]").replace(b"[[decode]]", b"[[device.decode]]").replace(
    b"[decode.", b"[device.decode."
)


@pytest.fixture(scope="session")
def ground(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a finished run, a plan of it, and what belongs to the user."""
    folder = tmp_path_factory.mktemp("campaign") / "ground"
    folder.mkdir()
    (folder / "model").symlink_to(llama_tied)
    (folder / "mine").mkdir()
    (folder / "mine" / "optimizer.pt").write_bytes(b"weeks of work")
    (folder / "types.txt").write_text("attn_q=q4_0\nffn_down=q8_0\n", encoding="utf-8")
    (folder / "devices.toml").write_bytes(_FLEET)
    fit = ran(folder, WRITING[0])
    assert fit.code == 0, fit.printed
    (folder / "given.json").write_bytes((folder / "run" / "plan.json").read_bytes())
    return folder


@pytest.fixture(scope="session")
def whole(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Command], dict[str, str]]:
    """Return the results of an undisturbed command, run once, when it is first asked for."""

    @cache
    def left(of: Command) -> dict[str, str]:
        folder = laid_out(tmp_path_factory.mktemp("whole") / of.name, ground, of)
        ended = ran(folder, of)
        assert ended.code == 0, ended.printed
        return results(folder)

    return left
