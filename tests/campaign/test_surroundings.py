"""Commands in a bad place: a disk that is full at any byte, folders that are read-only or vanish, another process, little memory, a closed pipe."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.campaign import figures
from tests.campaign.ground import PROFILE, ROUNDS, SECONDS, WRITING, Command, half_written, laid_out, left, ran, results, strangers
from tests.processes import process
from tests.work import CANNOT_DROP, command, command_without_a_reader, unprivileged_command

pytestmark = pytest.mark.slow

_DISK_BYTES = {
    "fit": 900_000,
    "search": 700_000,
    "plan": 500_000,
    "build": 200_000,
    "fleet": 300_000,
    "import": 700_000,
    "order": 500_000,
    "profile": 20_000,
}
_PAGE = 4096
Whole = Callable[[Command], dict[str, str]]


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """A file system at `folder`, where this user may mount one."""
    if sys.platform != "linux" or subprocess.run(["mount", *words, folder], capture_output=True, check=False).returncode:
        pytest.skip("only root mounts file systems")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # what it mapped may still be held


def resized(folder: Path, n_bytes: int) -> None:
    """Give the file system at `folder` so many bytes beyond those that are used."""
    used = shutil.disk_usage(folder).used
    subprocess.run(["mount", "-o", f"remount,size={used + n_bytes}", folder], check=True)


@pytest.mark.parametrize("of", (*WRITING, PROFILE) if ROUNDS else WRITING[1:4], ids=lambda of: of.name)
def test_a_full_disk_loses_nothing(of: Command, ground: Path, whole: Whole, tmp_path: Path) -> None:
    n_steps, refused = ROUNDS or 2, 0
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        for step in range(n_steps):
            folder = laid_out(disk / "work", ground, of)
            mine = strangers(folder)
            resized(disk, max(_PAGE, _DISK_BYTES[of.name] * step // n_steps))
            ended = ran(folder, of, tmp_path / "printed")  # not on the full disk, which would lose its words
            assert ended.code in (0, 2), ended.printed
            assert strangers(folder) == mine
            assert not half_written(folder, whole(of)), step
            if ended.code:
                refused += 1
                ended.require_a_sentence()
            resized(disk, 1 << 26)
            again = ran(folder, of)
            assert again.code == 0, again.printed
            assert results(folder) == whole(of)
            assert not left(folder)
            shutil.rmtree(folder)
    assert refused
    figures.note("full disks", of.name, disks=n_steps, refused=refused, other_plans=0)


@pytest.mark.parametrize("of", (*WRITING, PROFILE) if ROUNDS else (WRITING[2], WRITING[6]), ids=lambda of: of.name)
def test_where_nothing_can_be_written_nothing_is(of: Command, ground: Path, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "work", ground, of)
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        mine = results(folder)
        ended = ran(folder, of)
        assert ended.code == 2
        ended.require_a_sentence()
        assert results(folder) == mine
    figures.note("read-only folders", of.name, sentences=1)


#: for each command, what it reads or writes in, one of which may not be opened
LOCKED = {
    "fit": ("model", "model/config.json", "model/model.safetensors", "model/tokenizer.json"),
    "search": ("model", "model/model.safetensors"),
    "plan": ("run", "run/run.sqlite"),
    "build": ("model", "given.json", "run", "run/imatrix.gguf"),
    "fleet": ("devices.toml", "run/run.sqlite"),
    "import": ("model", "types.txt"),
    "order": ("model", "model/config.json"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes privileges one by one")
@pytest.mark.parametrize("of", WRITING if ROUNDS else WRITING[:4], ids=lambda of: of.name)
def test_what_may_not_be_read_is_named(of: Command, ground: Path, llama_tied: Path, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "work", ground, of)
    (folder / "model").unlink()
    shutil.copytree(llama_tied, folder / "model")
    mine = results(folder)
    for name in (*LOCKED[of.name], "."):
        mode = (folder / name).stat().st_mode
        (folder / name).chmod(0 if name != "." else 0o555)  # which may be read, and not written in
        with process(unprivileged_command, list(of.words), folder, tmp_path / "printed") as running:
            code = running.exit_code(SECONDS)
        (folder / name).chmod(mode)
        if code == CANNOT_DROP:
            pytest.skip("root may not drop privileges here")
        said = (tmp_path / "printed").read_text(encoding="utf-8")
        assert code == 2, f"{name}: {said}"
        assert "Traceback" not in said
        assert said.count("bitwright: ") + said.count("Usage: ") == 1, said
        assert any(words in said for words in ("ermission denied", "not readable", "cannot be written")), f"{name}: {said}"
        assert results(folder) == mine
    figures.note("folders that may not be read", of.name, sentences=len(LOCKED[of.name]) + 1)


@pytest.mark.parametrize("words", [("--out", "MODEL"), ("--out", "MODEL/run"), ("--out", "MODEL", "--target", "transformers")], ids=" ".join)
def test_another_name_for_the_model_is_the_model(words: tuple[str, ...], ground: Path, llama_tied: Path, tmp_path: Path) -> None:
    """A file system that does not tell `MODEL` from `model` gives both one device and one number, as a mount of one at the other does."""
    of = Command("fit", ("fit", "model", "--budget", "9.5bpw", *words))
    folder = laid_out(tmp_path / "work", ground, of)
    (folder / "model").unlink()
    shutil.copytree(llama_tied, folder / "model")
    mine = results(folder)
    (folder / "MODEL").mkdir()
    with mounted(folder / "MODEL", "--bind", str(folder / "model")):
        ended = ran(folder, of)
        assert ended.code == 2
        ended.require_a_sentence()
        assert "made from" in ended.printed
    (folder / "MODEL").rmdir()
    assert results(folder) == mine


def test_a_run_folder_that_vanishes_is_said(ground: Path, tmp_path: Path) -> None:
    of = WRITING[1]
    folder = laid_out(tmp_path / "work", ground, of)
    mine = strangers(folder)
    with process(command, list(of.words), folder, tmp_path / "printed") as running:
        next(running.news(SECONDS))
        while not (folder / "run" / "levels").exists():
            assert running.exit_code(0.01) is None
        (folder / "run").rename(folder / "elsewhere")
        code = running.exit_code(SECONDS)
    printed = (tmp_path / "printed").read_text(encoding="utf-8")
    assert code == 2, printed
    assert printed.count("bitwright: ") == 1
    assert strangers(folder) == mine
    figures.note("vanished folders", of.name, sentences=1)


def test_of_two_processes_in_one_run_folder_one_is_told(ground: Path, whole: Whole, tmp_path: Path) -> None:
    of = WRITING[1]
    folder = laid_out(tmp_path / "work", ground, of)
    with process(command, list(of.words), folder, tmp_path / "printed") as running:
        next(running.news(SECONDS))
        while not (folder / "run" / ".lock").exists():
            assert running.exit_code(0.01) is None
        other = ran(folder, of)
        assert running.exit_code(SECONDS) == 0
    assert other.code == 2
    other.require_a_sentence()
    assert "another works in" in other.printed
    assert results(folder) == whole(of)
    figures.note("two processes", of.name, refused=1, other_plans=0)


def script(words: list[str], folder: Path, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    """The installed command, as its entry point begins it, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = [sys.executable, "-c", "from bitwright.cli.start import main; main()", *words]
    return subprocess.run(started, check=False, cwd=folder, env=environment, **streams)  # type: ignore[call-overload,no-any-return]


def require_told_of_the_pipe(code: int | None, printed: str) -> None:
    assert code == 2
    assert printed.count("bitwright: ") == 1
    assert "closed it" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("words", [["methods"], ["front", "run"]], ids=" ".join)
def test_a_pipe_that_is_closed_is_no_broken_promise(words: list[str], ground: Path, tmp_path: Path) -> None:
    with process(command_without_a_reader, words, ground, tmp_path / "printed") as running:
        code = running.exit_code(SECONDS)
    require_told_of_the_pipe(code, (tmp_path / "printed").read_text(encoding="utf-8"))


def test_a_pipe_that_is_closed_is_no_broken_promise_in_a_process_to_its_very_end(ground: Path) -> None:
    hear, tell = os.pipe()
    os.close(hear)
    try:
        ended = script(["fit", "--help"], ground, stdout=tell, stderr=subprocess.PIPE)
    finally:
        os.close(tell)
    require_told_of_the_pipe(ended.returncode, ended.stderr.decode())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of addresses")
@pytest.mark.parametrize("megabytes", [100, 400, 1000, *((1700, 2000, 2600) if ROUNDS else ())])
def test_too_little_memory_is_a_sentence_also_while_libraries_are_loaded(megabytes: int, ground: Path, tmp_path: Path) -> None:
    of, folder = WRITING[1], laid_out(tmp_path / "work", ground, WRITING[1])
    limit = (megabytes << 20, megabytes << 20)
    ended = script(list(of.words), folder, capture_output=True, timeout=SECONDS, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    assert ended.returncode in ((0, 2) if megabytes > 1000 else (2,)), ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
    if ended.returncode:
        assert ended.stderr.count(b"bitwright: ") == 1, ended.stderr.decode()
    figures.note("little memory", f"{megabytes} MB of addresses", exit_code=ended.returncode)
