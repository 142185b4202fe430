"""Ends of commands: one sentence and an exit code, whatever their surroundings do to them."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bitwright.cli.guard import guarded
from bitwright.errors import BrokenPromiseError, UserError
from tests.commands import Cli


def ended(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command and its sentence."""
    with pytest.raises(SystemExit) as found:
        guarded(command)
    printed = capsys.readouterr().err
    assert printed.count("bitwright: ") == 1
    assert printed.endswith(".\n")
    assert "Traceback" not in printed
    return int(found.value.code or 0), printed


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("A rule."), 2, "A rule."),
        (BrokenPromiseError("A promise."), 1, "A promise."),
        (MemoryError(), 2, "more memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), 2, "more memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 2, "more memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), 2, "more memory"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "folder/a"), 2, "folder/a is not (Permission denied)"),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "nnn"), 2, "File name too long"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "No space left"),
        (BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), 2, "closed it"),
        (KeyboardInterrupt(), 130, "Stopped."),
        (SystemExit(130), 130, "Stopped."),
    ],
)
def test_what_goes_wrong_around_a_command_is_a_sentence(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, printed = ended(raising(error), capsys)
    assert found == code
    assert words in printed


@pytest.mark.parametrize("error", [RuntimeError("a fault of the program"), ValueError("another")])
def test_a_fault_of_the_program_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)):
        guarded(raising(error))


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """Let SIGHUP end a process, which it does not where the tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_with_a_sentence_after_everything_was_closed(number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def command() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            closed.append(number)

    found, printed = ended(command, capsys)
    assert (found, closed) == (code, [number])
    assert signal.Signals(number).name in printed
    assert "Run the same command again" in printed
    assert signal.getsignal(number) == signal.SIG_DFL


@pytest.mark.parametrize("error", [SystemError("returned a result with an exception set"), UserError("A file is not whole."), OSError(errno.EIO, "")])
def test_what_a_signal_surfaces_as_is_the_signal(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """C that calls Python makes a `SystemError` of any exception, or loses it and fails on what it then finds."""

    def command() -> None:
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        raise error

    found, printed = ended(command, capsys)
    assert found == 143
    assert "SIGTERM" in printed


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        guarded(lambda: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def script(code: str, *words: object, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    """A command of a few lines in a process of its own."""
    lines = f"import sys\nfrom bitwright.cli.guard import guarded\nfrom bitwright.cli.output import out\n{code}\nguarded(command)\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-c", lines, *map(str, words)], check=False, env=environment, **{"capture_output": True} | streams)  # type: ignore[call-overload,no-any-return]


def test_a_file_that_is_cut_off_while_it_is_mapped_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    code = (
        "import os, numpy as np\ndef command():\n    a = np.memmap(sys.argv[1], dtype=np.uint8, mode='r')\n"
        "    os.truncate(sys.argv[1], 0)\n    a.sum()\n    out.print('never')"
    )
    found = script(code, tmp_path / "a")
    assert found.returncode == 2
    assert found.stdout == b""
    assert found.stderr.startswith(b"bitwright: A file that is being read became shorter")
    assert found.stderr.count(b"\n") == 1


def test_a_library_that_gives_up_is_a_sentence() -> None:
    found = script("import os\ndef command():\n    os.abort()")
    assert (found.returncode, found.stdout) == (2, b"")
    assert (
        found.stderr
        == b"bitwright: A library ended the command, which may lack memory or threads (ulimit -v, -u): raise the limit and run it again.\n"
    )


def test_a_terminal_in_ascii_shows_what_it_can() -> None:
    found = script("def command():\n    out.print('0.1 ± 0.2 nats')")
    assert (found.returncode, found.stdout, found.stderr) == (0, b"0.1 ? 0.2 nats\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["out.print('text')", "sys.stdout.write('text')"])
def test_a_full_output_is_a_sentence(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        found = script(f"def command():\n    {words}", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert found.returncode == 2
    assert found.stderr.startswith(b"bitwright: The output must be writable")
    assert found.stderr.count(b"\n") == 1


def test_too_little_memory_is_a_sentence() -> None:
    code = "import resource, numpy as np\ndef command():\n    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n    np.ones(2**28)"
    found = script(code)
    assert found.returncode == 2
    assert found.stderr.startswith(b"bitwright: The command needs more memory")


# --- through the commands


def test_a_folder_that_is_gone_is_said(bitwright: Cli, tmp_path: Path) -> None:
    here = Path.cwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
        ended = bitwright("methods")
    finally:
        os.chdir(here)
    assert ended.code == 2
    assert "it was removed" in ended.err


def test_pipes_and_devices_are_no_input(bitwright: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / ("n" * 300)):
        fit = ("fit", path, "--budget", "1MB", "--out", tmp_path / "o")
        for words in (("build", path), fit, ("export", path, "--to", "mlx", "-o", tmp_path / "x")):
            ended = bitwright(*words)
            assert ended.code == 2, ended
            assert ended.err.count("bitwright: ") == 1
    assert [found.name for found in tmp_path.iterdir() if found.name != "o"] == ["pipe"]
