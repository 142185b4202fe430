"""The ground that campaigns are fought on, made once a session and copied for each."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.campaign.ground import WRITING, Command, laid_out, ran, results
from tests.campaign.test_readers import profile
from tests.made_once import made_once

_FLEET = b"[[device]]\n" + profile().replace(b"[source]", b"[device.source]").replace(b"[[decode]]", b"[[device.decode]]").replace(
    b"[decode.", b"[device.decode."
)


@pytest.fixture(scope="session")
def ground(llama_tied: Path, model_folders: Path) -> Path:
    """A folder with a model, a finished run, a plan of it, and what belongs to the user; tests work on copies."""

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model").symlink_to(llama_tied)
        (folder / "mine").mkdir()
        (folder / "mine" / "optimizer.pt").write_bytes(b"weeks of work")
        (folder / "types.txt").write_text("attn_q=q4_0\nffn_down=q8_0\n", encoding="utf-8")
        (folder / "devices.toml").write_bytes(_FLEET)
        fit = ran(folder, WRITING[0])
        assert fit.code == 0, fit.printed
        (folder / "given.json").write_bytes((folder / "run" / "plan.json").read_bytes())

    return made_once(model_folders / "ground", make)


@pytest.fixture(scope="session")
def whole(ground: Path, model_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Command], dict[str, str]]:
    """Return the results of an undisturbed command, run once a session, when it is first asked for."""

    @cache
    def left(of: Command) -> dict[str, str]:
        def make(path: Path) -> None:
            folder = laid_out(tmp_path_factory.mktemp("whole") / of.name, ground, of)
            ended = ran(folder, of)
            assert ended.code == 0, ended.printed
            path.write_text(json.dumps(results(folder)), encoding="utf-8")

        found: dict[str, str] = json.loads(made_once(model_folders / f"whole {of.name}.json", make).read_text(encoding="utf-8"))
        return found

    return left
