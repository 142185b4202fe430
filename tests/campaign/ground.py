"""The ground of a campaign: a folder with a model, runs and a stranger's files, the commands that write there, and what they leave."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.processes import process
from tests.runs import rows
from tests.work import command

SEED = int(os.environ.get("BITWRIGHT_SEED", "1"))
#: how often the long form tries what the short form tries once or twice
ROUNDS = int(os.environ.get("BITWRIGHT_ROUNDS", "0"))
SECONDS = 180.0
FEW = ("--calibration-sequences", "8", "--held-out-sequences", "4", "--sequence-length", "16")
MENU = ("--formats", "Q8_0,Q4_0")
_TIMED = ("report.html", "run.sqlite", "here.toml")  # what holds seconds, and so is never twice the same
_BOOKS = (".lock", ".bitwright-files")


@dataclass(frozen=True)
class Command:
    """Words of the command line; `run` is the folder of the run that it works in, and `begins` whether it needs one that is there."""

    name: str
    words: tuple[str, ...]
    run: str = "run"
    needs_run: bool = False


WRITING = (
    Command("fit", ("fit", "model", "--budget", "9.5bpw", "--out", "run", "--evaluations", "4", *MENU, *FEW)),
    Command("search", ("search", "model", "--out", "run", "--evaluations", "4", "--points", "2", *MENU, *FEW)),
    Command("plan", ("plan", "run", "--budget", "9.1bpw", "-o", "plan.json"), needs_run=True),
    Command("build", ("build", "given.json", "-o", "built.gguf"), needs_run=True),
    Command("fleet", ("fleet", "run", "devices.toml", "--out", "fleet"), needs_run=True),
    Command("import", ("import", "model", "types.txt", "--from", "llama-quantize", "--out", "run", "-o", "plan.json", *FEW)),
    Command("order", ("order", "model", "--out", "ordered", "--calibration-sequences", "4", "--sequence-length", "16")),
)
PROFILE = Command("profile", ("profile", "--out", "here.toml", "--formats", "Q4_K", "--threads", "1"))


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, and all that it printed."""

    code: int | None
    printed: str

    def require_a_sentence(self) -> None:
        """Hold it to one sentence, and to no traceback."""
        assert "Traceback" not in self.printed, self.printed
        assert self.printed.count("bitwright: ") == 1, self.printed


def ran(folder: Path, of: Command, printed: Path | None = None) -> Ended:
    """A command that is left alone; `printed` is where its words go, beside `folder` if it is not given."""
    printed = printed or folder.with_name(f"{folder.name}.printed")
    with process(command, list(of.words), folder, printed) as running:
        code = running.exit_code(SECONDS)
    return Ended(code, printed.read_text(encoding="utf-8", errors="replace"))


def laid_out(folder: Path, ground: Path, of: Command) -> Path:
    """A copy of the ground for one command: with the finished run where it needs one, and no run where it makes one."""
    shutil.copytree(ground, folder, symlinks=True)
    if not of.needs_run:
        shutil.rmtree(folder / "run")
        (folder / "given.json").unlink()
        return folder
    plan = folder / "given.json"  # a plan names its run by its whole path
    plan.write_text(plan.read_text(encoding="utf-8").replace(str(ground), str(folder)), encoding="utf-8")
    return folder


def strangers(folder: Path) -> dict[str, str]:
    """The digest of every file that no command of Bitwright's wrote there: the model, texts, and what else a user has lying about."""
    return {name: _digest(folder / name) for name in _files(folder) if name.split("/")[0] in ("model", "mine", "types.txt", "devices.toml")}


def results(folder: Path) -> dict[str, str]:
    """The digest of every file that has its final name, paths and times left out."""
    names = [name for name in _files(folder) if not name.endswith(".part") and Path(name).name not in _BOOKS]
    return {name: _digest(folder / name, str(folder)) for name in names if not Path(name).name.startswith(_TIMED)}


def half_written(folder: Path, whole: dict[str, str]) -> list[str]:
    """Results that have their final name, and not what they have in an undisturbed run."""
    return [name for name, found in results(folder).items() if whole.get(name, found) != found]


def left(folder: Path) -> list[str]:
    """Return the files that were begun and not finished."""
    return [name for name in _files(folder) if name.endswith(".part")]


def evaluated(folder: Path) -> dict[object, object]:
    """Every measurement of the run in a folder, with the seconds that it took."""
    return rows(folder / "run")["measurements"] if (folder / "run" / "run.sqlite").is_file() else {}


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.name.endswith(".part"))


def _digest(path: Path, root: str = "") -> str:
    if path.is_dir():
        return "a folder"
    data = path.read_bytes()
    if path.suffix in (".json", ".toml", ".txt", ".md") and root:
        data = data.replace(root.encode(), b"")
    if path.name == "plan.json" and root:
        said = json.loads(data)
        said["importance"].pop("path")
        data = json.dumps(said).encode()
    return hashlib.sha256(data).hexdigest()
