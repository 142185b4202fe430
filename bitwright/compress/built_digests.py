"""The digests of what was built, in a small file beside it: `model.gguf.sha256`, as `sha256sum` writes and `sha256sum -c` reads it.

A line holds the SHA-256 of a file and its path as seen from where the record lies.
"""

from pathlib import Path

from bitwright.compress.kept_codes import digest
from bitwright.compress.temporary import replacing
from bitwright.errors import BrokenPromiseError, ModelError, OutputError

_SUFFIX = ".sha256"
_BINARY = " *"  # as sha256sum marks files that are no text


def digest_record(built: Path) -> Path:
    """Where the digests of what was built to `built` lie."""
    return built.with_name(built.name + _SUFFIX)


def record_digests(built: Path) -> None:
    """Write the digest of every file of `built`, a file or a folder.

    Raises:
        OutputError: the record cannot be written, or a file cannot be read.
    """
    path = digest_record(built)
    try:
        lines = [f"{digest(file)}{_BINARY}{file.relative_to(built.parent).as_posix()}\n" for file in _files(built)]
        with replacing(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The digests of a model must be writable to {path}; they are not ({error.strerror or error}): make room.") from error


def forget_digests(built: Path) -> None:
    """Remove the record of what is about to be built anew.

    Raises:
        OutputError: it cannot be removed.
    """
    path = digest_record(built)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"The digests of a model must be writable to {path}; they are not ({error.strerror or error}): choose another.") from error


def require_as_built(built: Path) -> bool:
    """Compare every file of `built` with its digest; whether there is a record of them.

    Raises:
        BrokenPromiseError: a file was changed since, is gone, or is new.
        ModelError: the record or a file cannot be read.
    """
    path = digest_record(built)
    if not path.is_file():
        return False
    try:
        lines = (line.partition(_BINARY) for line in path.read_text(encoding="utf-8").splitlines() if line)
        recorded = {name: said for said, _, name in lines}
        found = {file.relative_to(built.parent).as_posix(): digest(file) for file in _files(built)}
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The digests of a model must be readable; {path} and its files are not ({error}): build the model again.") from error
    wrong = sorted(name for name in {*recorded, *found} if recorded.get(name) != found.get(name))
    if wrong:
        raise BrokenPromiseError(
            f"A model must be, to the bit, what was built; {built.parent / wrong[0]} is not what {path.name} says ({len(wrong)} such): build it "
            "again."
        )
    return True


def _files(built: Path) -> list[Path]:
    return sorted(file for file in built.rglob("*") if file.is_file()) if built.is_dir() else [built]
