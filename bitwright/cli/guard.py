"""End of a command: one sentence and an exit code for every error and signal.

2 for a mistake, a full disk, too little memory or a file that vanished, 1 for a broken promise, 128 plus its number for a signal.
"""

import ctypes
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from bitwright.cli.output import err
from bitwright.errors import BrokenPromiseError, UserError

_MISTAKE, _BROKEN, _SIGNAL = 2, 1, 128
_GOES_ON = "Run the same command again to continue where it stopped."
_NO_MEMORY = "The command needs more memory than it may use here: give it more, or use fewer and shorter sequences, or a smaller model."
# messages of torch, C++ and the dynamic loader when memory runs out
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory", "failed to map segment")
_ABORTED = b"bitwright: A library ended the command, which may lack memory or threads (ulimit -v, -u): raise the limit and run it again.\n"
_CUT_OFF = b"bitwright: A file that is being read became shorter, or its disk failed: restore it, and run the same command again.\n"


class Stopped(BaseException):
    """Signal that ends the process: a `BaseException`, which no handler of errors catches, so that everything open is closed on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(command: Callable[[], object]) -> None:
    """Run a command; it ends by `SystemExit`, after one sentence if it failed."""
    _print_anything()
    try:
        with _signals() as stops, _surfaced(stops):
            _require_a_folder()
            command()
            if sys.stdout:
                sys.stdout.flush()
    except UserError as error:
        _end(str(error), _MISTAKE)
    except BrokenPromiseError as error:
        _end(str(error), _BROKEN)
    except Stopped as stopped:
        _end(f"Stopped by {signal.Signals(stopped.number).name}. {_GOES_ON}", _SIGNAL + stopped.number)
    except KeyboardInterrupt:
        _end(f"Stopped. {_GOES_ON}", _SIGNAL + signal.SIGINT)
    except MemoryError:
        _end(_NO_MEMORY, _MISTAKE)
    except OSError as error:
        _end(_surroundings(error), _MISTAKE)
    except (RuntimeError, ImportError) as error:
        if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        _end(_NO_MEMORY, _MISTAKE)
    except SystemExit as ended:
        if ended.code == _SIGNAL + signal.SIGINT:  # what typer makes of Ctrl-C, without a word
            _end(f"Stopped. {_GOES_ON}", _SIGNAL + signal.SIGINT)
        if isinstance(ended.__context__, BrokenPipeError):  # what typer and rich make of it: the code of a broken promise, without a word
            _end(_surroundings(ended.__context__), _MISTAKE)
        _flush(ended)
        raise


def _end(sentence: str, code: int) -> None:
    with suppress(OSError, ValueError):
        try:
            err.print(f"bitwright: {sentence}", soft_wrap=True)
        except MemoryError:  # not even for the way a sentence is printed
            os.write(2, f"bitwright: {sentence}\n".encode())
    _close_output()
    sys.exit(code)


def _flush(ended: SystemExit) -> None:
    """Flush what was printed; end with a sentence where the output is full or closed."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        if not ended.code:
            _end(_surroundings(error), _MISTAKE)
        _close_output()


def _close_output() -> None:
    """Discard what cannot be flushed, so that the end of the process does not fail on it again."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _surroundings(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno == errno.ENOMEM:
        return _NO_MEMORY
    if isinstance(error, BrokenPipeError):
        return "The output must be read to its end; the program that read it has closed it: let it read on, or write to a file."
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return f"The output must be writable; it is not ({reason}): send it elsewhere, or make room."
    if error.filename is None:
        return f"The system refused a request of the command ({reason}): correct that, and run the same command again."
    path = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    return f"Files and folders must be accessible; {path} is not ({reason}): check the path, its permissions and its disk."


def _require_a_folder() -> None:
    """Refuse to work in a folder that was removed, where no relative path can be found."""
    try:
        os.getcwd()  # noqa: PTH109  # Path.cwd raises the same without saying so
    except FileNotFoundError as error:
        raise UserError("The working directory must exist; it was removed: change to another one, and run the command again.") from error


def _print_anything() -> None:
    """Print a question mark for every character that the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


# --- signals


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP raise `Stopped` once, unless they are ignored, and explain SIGBUS, which a mapped file raises when it is cut off.

    Yields the numbers of those that came.
    """
    stops: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        stops.append(number)
        raise Stopped(number)

    is_main = threading.current_thread() is threading.main_thread()  # only this thread may set handlers
    asked = [number for number in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(number) == signal.SIG_DFL]
    for number in asked:
        signal.signal(number, stop)
    before = {number: _handled(number, ctypes.cast(handler, ctypes.c_void_p).value) for number, handler in _TELL.items()}
    try:
        yield stops
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)
        for number, handler in before.items():
            _handled(number, handler)


@contextmanager
def _surfaced(stops: list[int]) -> Iterator[None]:
    """Raise `Stopped` for any error after a signal: one that comes while C calls Python, as NumPy does for a path, surfaces as `SystemError`."""
    try:
        yield
    except Exception as error:
        if stops:
            raise Stopped(stops[0]) from error
        raise


def _handled(number: int, handler: int | None) -> int | None:
    """Set the handler of a signal that the process raises itself, and return the one before.

    A handler in Python would never run: Python waits for the failed instruction to finish, and that is repeated for ever.
    """
    system = ctypes.CDLL(None).signal
    system.restype, system.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before: int | None = system(number, handler)
    return before


def _tell_and_end(number: int) -> None:
    os.write(2, _ABORTED if number == signal.SIGABRT else _CUT_OFF)
    os._exit(_MISTAKE)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(_tell_and_end)  # a C function, referenced for the life of the process
#: SIGBUS: a page of a mapped file is gone; SIGABRT: a C++ library gives up
_TELL = {signal.SIGBUS: _HANDLER, signal.SIGABRT: _HANDLER}
