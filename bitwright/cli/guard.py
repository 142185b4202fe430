"""How a command ends: a sentence and an exit code for whatever its surroundings do to it.

2 for a mistake, a full disk, too little memory or a file that vanished, 1 for a broken promise, 128 and its number for a signal.
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
_GOES_ON = "The same command goes on where it was."
_NO_MEMORY = "The command needs more memory than it may have here: give it more, or fewer and shorter sequences, or a smaller model."
# what torch, C++ and the dynamic loader say where there is no memory
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory", "failed to map segment")
_ABORTED = b"bitwright: A library ended the command, which may lack memory or threads (ulimit -v, -u): raise the limit, and give it again.\n"
_CUT_OFF = b"bitwright: A file that is being read became shorter, or its disk failed: put it back, and give the same command again.\n"


class Stopped(BaseException):
    """A signal asked the process to end: no error that anything handles, so that all that is open is closed on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(command: Callable[[], object]) -> None:
    """Run a command; it ends by `SystemExit`, after a sentence where it did not do what it was to do."""
    _print_anything()
    try:
        with _signals():
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
            err.print(f"bitwright: {sentence}", soft_wrap=True, markup=False)
        except MemoryError:  # not even for the way a sentence is printed
            os.write(2, f"bitwright: {sentence}\n".encode())
    _close_output()
    sys.exit(code)


def _flush(ended: SystemExit) -> None:
    """Have all that was printed leave the process, which fails where the output is full or was closed."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        if not ended.code:
            _end(_surroundings(error), _MISTAKE)
        _close_output()


def _close_output() -> None:
    """Nothing is to fail again at what is left in the buffer when the process ends."""
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
        return "What is printed must be read to its end; the program that read it has closed it: let it read on, or write to a file."
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return f"What is printed needs a place; it cannot be written ({reason}): send it elsewhere, or make room."
    if error.filename is None:
        return f"The system refused what the command needs ({reason}): mend that, and give the same command again."
    path = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    return f"Files and folders that are named must be usable; {path} is not ({reason}): check the path, its permissions and its disk."


def _require_a_folder() -> None:
    """Refuse to work in a folder that is gone: nothing that is named by a relative path can be found."""
    try:
        os.getcwd()  # noqa: PTH109  # Path.cwd raises the same without saying so
    except FileNotFoundError as error:
        raise UserError("The folder in which the command was started must be there; it was removed: change to another, and give it again.") from error


def _print_anything() -> None:
    """A terminal that lacks a character shows a question mark for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


# --- signals


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped`, once, and tell what a file means that is cut off while it is mapped; not those that are ignored."""
    is_main = threading.current_thread() is threading.main_thread()  # no other may say what a signal does
    asked = [number for number in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(number) == signal.SIG_DFL]
    for number in asked:
        signal.signal(number, _stop)
    before = {number: _handled(number, ctypes.cast(handler, ctypes.c_void_p).value) for number, handler in _TELL.items()}
    try:
        yield
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)
        for number, handler in before.items():
            _handled(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Stopped(number)


def _handled(number: int, handler: int | None) -> int | None:
    """Set what the system calls at a signal of the process's own making, and give what it was to call before.

    Python's own handlers would never run: they wait for the instruction that failed, which is tried again for ever.
    """
    system = ctypes.CDLL(None).signal
    system.restype, system.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before: int | None = system(number, handler)
    return before


def _tell_and_end(number: int) -> None:
    os.write(2, _ABORTED if number == signal.SIGABRT else _CUT_OFF)
    os._exit(_MISTAKE)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(_tell_and_end)  # a function of C, kept for as long as the process lives
#: a page of a mapped file that is not there any more, and a library of C++ that gives up
_TELL = {signal.SIGBUS: _HANDLER, signal.SIGABRT: _HANDLER}
