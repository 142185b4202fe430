"""Results that are aimed at what Bitwright did not write, by any name: refused, and every byte is what it was."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests.campaign import figures
from tests.commands import Cli

pytestmark = pytest.mark.slow

_SMALL = ("--calibration-sequences", 4, "--held-out-sequences", 2, "--sequence-length", 12)
_UNSEARCHED = ("--evaluations", 0, *_SMALL)
#: by what words a command says where its result goes
COMMANDS = {
    "fit": ("fit", "model", "--budget", "9.5bpw", "--formats", "Q8_0,Q4_0", *_UNSEARCHED, "--out"),
    "fit for transformers": ("fit", "model", "--target", "transformers", "--budget", "9.5bpw", "--formats", "W8_G32,W4_G32", *_UNSEARCHED, "--out"),
    "search": ("search", "model", "--formats", "Q8_0,Q4_0", "--points", 2, *_UNSEARCHED, "--out"),
    "plan": ("plan", "run", "--budget", "9.5bpw", "-o"),
    "build": ("build", "given.json", "-o"),
    "fleet": ("fleet", "run", "devices.toml", "--out"),
    "import": ("import", "model", "types.txt", "--from", "llama-quantize", "--out", "new", *_SMALL, "-o"),
    "import to a run": ("import", "model", "types.txt", "--from", "llama-quantize", "-o", "new.json", *_SMALL, "--out"),
    "export": ("export", "given.json", "--to", "llama-quantize", "-o"),
    "profile": ("profile", "--model", "model", "--out"),
    "front": ("front", "run", "--report"),
    "order": ("order", "model", "--calibration-sequences", 4, "--sequence-length", 16, "--out"),
}
#: what every one of them must leave alone, by whatever name
AIMS = (
    *("model", "model/", "model/config.json", "model/deeper/a", "link", "link/a", "hard", "weights"),
    *("mine", "mine/optimizer.pt", "to mine/optimizer.pt"),
    *("run/run.sqlite", "run/imatrix.gguf", "run/levels", "./model/../model/model.safetensors", "types.txt", "dangling"),
)


def contents(root: Path) -> dict[str, str]:
    """The digest of every file below a folder but locks and records, and where links lead; of a run, which goes on, the mark of its kind."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(root).as_posix()] = str(path.readlink())
        elif path.is_file() and path.name not in (".lock", ".bitwright-files") and not path.name.startswith("run.sqlite-"):
            data = path.read_bytes()
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data[:16] if path.name == "run.sqlite" else data).hexdigest()
    return found


@pytest.fixture(scope="module")
def place(ground: Path, llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ground with the model itself in it, and links to it."""
    folder = tmp_path_factory.mktemp("strangers") / "place"
    shutil.copytree(ground, folder, symlinks=True)
    (folder / "model").unlink()
    shutil.copytree(llama_tied, folder / "model")
    plan = folder / "given.json"
    plan.write_text(plan.read_text(encoding="utf-8").replace(str(ground), str(folder)), encoding="utf-8")
    (folder / "link").symlink_to("model")
    os.link(folder / "model" / "config.json", folder / "hard")
    (folder / "weights").symlink_to("model/model.safetensors")
    (folder / "to mine").symlink_to("mine")
    (folder / "dangling").symlink_to("nowhere")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_bitwrights_is_byte_for_byte_what_it_was(name: str, place: Path, bitwright: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before, refused, written = contents(place), 0, 0
    for aim in AIMS:
        ended = bitwright(*COMMANDS[name], aim)
        assert "Traceback" not in ended.err
        after = contents(place)
        assert {path: after.get(path) for path in before} == before, f"{name} to {aim}: {ended.err}"
        refused, written = refused + (ended.code == 2), written + (ended.code == 0)
        if ended.code == 2:
            assert ended.err.count("bitwright: ") == 1, ended.err
        for path in set(after) - set(before):
            (place / path).unlink()
    assert refused
    figures.note("strangers' files", name, paths=len(AIMS), refused=refused, written_elsewhere=written, changed=0)
