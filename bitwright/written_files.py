"""Record of the files that Bitwright wrote and may therefore replace, in every folder with results.

`.bitwright-files` lists each result in its folder, its kind, and the SHA-256 of its file, or of every file in it if it is a folder. A result is
replaced only if all its files are unchanged; foreign, added and modified files are never overwritten. The new digests are recorded before the result
is renamed into place, so that a kill in between leaves no unknown file.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bitwright.errors import BrokenPromiseError, OutputError
from bitwright.whole_files import beside, discard, output_errors, sync, sync_folder, temporary_name, write_chunks

RECORD, LOCK = ".bitwright-files", ".lock"  # of a folder with results, and of a run folder
_CHUNK_BYTES = 1 << 24
_SCHEMA = 1
_ITSELF = "."  # key of a result that is a single file


@dataclass(frozen=True)
class Written:
    """Result in the record: its kind in a word or two, and for each of its files, by relative path, the digests that it may have.

    A file has two digests only while a result is being replaced. A result that is a single file has the path `.`.
    """

    kind: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


NOT_WRITTEN = Written("")


@contextmanager
def publishing(path: Path, kind: str) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write a result to, which is recorded and renamed when the block ends. An existing result must be of
    that `kind` and unchanged; long computations check that beforehand with `require_replaceable`.

    Raises:
        OutputError: the existing file is not Bitwright's or was changed, or the path cannot be written.
    """
    with publishing_together([path], kind) as (part,):
        yield part


@contextmanager
def publishing_together(paths: Sequence[Path], kind: str) -> Iterator[list[Path]]:
    """Yield temporary names beside `paths`, all in one folder, for results that are of use together; see `publishing`. All are renamed or none, the
    first of them last.

    Raises:
        OutputError: see `publishing`.
    """
    with output_errors(paths[0]), ExitStack() as stack:
        places = [placed(path) for path in paths]
        parts = [stack.enter_context(beside(place)) for place in places]
        yield parts
        new = [_digested(part) for part in parts]
        for path, place, part in zip(paths, places, parts, strict=True):
            require_replaceable(path, kind)
            _require_same_sort(place, part)
        _record({place: Written(kind, _either(written(place).files, found)) for place, found in zip(places, new, strict=True)})
        _put_together(parts, places)
        _record({place: Written(kind, found) for place, found in zip(places, new, strict=True)})


def _digested(part: Path) -> dict[str, tuple[str, ...]]:
    sync(part)
    return {name: (found,) for name, found in digests(part).items()}


def _require_same_sort(place: Path, part: Path) -> None:
    if place.exists() and place.is_dir() != part.is_dir():
        number = errno.EISDIR if place.is_dir() else errno.ENOTDIR
        raise OSError(number, os.strerror(number), str(place))


def publish_text(path: Path, text: str, *, kind: str) -> None:
    """Write a text as a result of that kind; see `publishing`.

    Raises:
        OutputError: see `publishing`.
    """
    with publishing(path, kind) as part:
        write_chunks(part, [text.encode(errors="replace")])


def require_replaceable(path: Path, kind: str) -> None:
    """Require that anything at `path` is empty, or an unchanged result of that kind written by Bitwright, and that the name is not one that Bitwright
    keeps for its own records.

    Raises:
        OutputError: it is not, or it cannot be read.
    """
    place = placed(path)
    if place.name.casefold() in (RECORD, LOCK):
        raise OutputError(f"A result may not have the name of a record that Bitwright keeps; {place} is one: choose another name.")
    with output_errors(path):
        if not os.path.lexists(place):
            return
        fault = _fault(place, kind)
    if fault:
        raise OutputError(
            f"Bitwright only replaces files that it wrote and that have not changed since; {fault}: choose another name, or remove it yourself."
        )


def _fault(place: Path, kind: str) -> str:
    if place.is_symlink():
        return f"{place} is a link"
    if not (place.is_file() or place.is_dir()):
        return f"{place} is a device, a pipe or a socket"
    known = written(place)
    if (place.is_dir() and not any(place.iterdir())) or (place.is_file() and not place.stat().st_size):
        return ""
    if known == NOT_WRITTEN:
        return f"{place} is a {'folder' if place.is_dir() else 'file'} that it did not write"
    if known.kind != kind:
        return f"{place} is a {known.kind}, and this is a {kind}"
    strange = next((inner for inner in _inner(place) if not _is_known(inner, place, known)), place)
    if strange != place or (place.is_file() and not _is_known(place, place, known)):
        name = strange.relative_to(place).as_posix()
        return f"{strange} was changed since" if name in known.files else f"{strange} was added since"
    return ""


def _is_known(inner: Path, place: Path, known: Written) -> bool:
    if inner.is_symlink() or not inner.is_file():
        return False
    return digest(inner) in known.files.get(inner.relative_to(place).as_posix(), ())


def _inner(place: Path) -> Iterator[Path]:
    """Yield the files and empty folders in a folder, at any depth; nothing for a file."""
    if place.is_symlink() or not place.is_dir():
        return
    for path in sorted(place.iterdir()):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path
        else:
            yield from _inner(path)


def placed(path: Path) -> Path:
    """Resolve links in the parent of the path; the last component may still be a link."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file of a folder, by relative path."""
    return {inner.relative_to(path).as_posix(): digest(inner) for inner in (_inner(path) if path.is_dir() else [path])}


def written(path: Path) -> Written:
    """Return the record of the result at `path`, or `NOT_WRITTEN` if there is none."""
    place = placed(path)
    return _read(place.parent).get(place.name, NOT_WRITTEN)


def is_as_written(path: Path, kind: str) -> bool:
    """Return whether `path` is an unchanged result of that kind."""
    place = placed(path)
    known = written(place)
    return place.exists() and known.kind == kind and not _fault(place, kind) and set(digests(place)) == set(known.files)


def require_as_written(path: Path) -> bool:
    """Require that every file of a result is unchanged since it was written; return whether there is a record of it.

    Raises:
        BrokenPromiseError: a file was changed, removed or added.
        OutputError: a file cannot be read.
    """
    place = placed(path)
    known = written(place)
    if known == NOT_WRITTEN:
        return False
    try:
        found = digests(place)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"A built model must be whole and readable; {error.filename or place} is not ({reason}): build it again.") from error
    wrong = sorted(name for name in {*known.files, *found} if found.get(name, "") not in known.files.get(name, ()))
    if wrong:
        raise BrokenPromiseError(
            f"A model must be bit-identical to the one that was built; {place if wrong[0] == _ITSELF else place / wrong[0]} differs from its "
            f"record in {RECORD} ({len(wrong)} such): build it again."
        )
    return True


def withdraw(path: Path) -> None:
    """Remove a result that was just written, and its record.

    Raises:
        OutputError: it cannot be removed.
    """
    place = placed(path)
    with output_errors(path):
        discard(place)
        _record({place: NOT_WRITTEN})


def _either(*some: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(name for files in some for name in files)
    return {name: tuple(dict.fromkeys(found for files in some for found in files.get(name, ()))) for name in names}


def _put_together(parts: Sequence[Path], places: Sequence[Path]) -> None:
    """Rename written results into place, the last one first. Of several, what was there is moved aside first, and back if one fails."""
    if len(parts) == 1:
        _put(parts[0], places[0])
        return
    aside = {place: temporary_name(place) for place in places if os.path.lexists(place)}
    done: list[Path] = []
    try:
        for place, old in aside.items():
            place.replace(old)
        for part, place in reversed(list(zip(parts, places, strict=True))):
            _put(part, place)
            done.append(place)
    except OSError:
        for place in done:
            discard(place)
        for place, old in aside.items():
            if os.path.lexists(old):
                old.replace(place)
        raise
    for old in aside.values():
        with suppress(OSError):
            discard(old)


def _put(part: Path, place: Path) -> None:
    """Rename a written result into place. An existing folder is moved aside first, and back if that fails."""
    if not (part.is_dir() and place.is_dir()):
        part.replace(place)
        sync_folder(place.parent)
        return
    old = temporary_name(place)
    place.replace(old)
    try:
        part.replace(place)
    except OSError:
        old.replace(place)
        raise
    sync_folder(place.parent)
    with suppress(OSError):
        discard(old)


# --- the record of a folder


def _record(results: Mapping[Path, Written]) -> None:
    """Record results by their paths, all in one folder; what is gone from the folder is forgotten."""
    folder, said = next(iter(results)).parent, {place.name: entry for place, entry in results.items()}
    with _held(folder):
        known = _read(folder, strict=True) | said
        kept = {name: entry for name, entry in known.items() if entry != NOT_WRITTEN and (name in said or os.path.lexists(folder / name))}
        record = {"schema_version": _SCHEMA, "results": {name: {"kind": entry.kind, "files": entry.files} for name, entry in kept.items()}}
        path = folder / RECORD
        with beside(path) as part:
            write_chunks(part, [(json.dumps(record, indent=1) + "\n").encode()])
            part.replace(path)
        sync_folder(folder)


def _read(folder: Path, *, strict: bool = False) -> dict[str, Written]:
    """Read the record of a folder; empty if there is none. A record that cannot be read counts as empty, but raises if `strict`, so that it is not
    overwritten.

    Raises:
        OSError: the record cannot be read, and `strict`.
    """
    path = folder / RECORD
    try:
        if not path.is_file():
            return {}
        said = json.loads(path.read_bytes())
        if said["schema_version"] != _SCHEMA:
            raise ValueError(f"its schema is {said['schema_version']}")
        return {
            str(name): Written(str(of["kind"]), {str(inner): tuple(map(str, found)) for inner, found in of["files"].items()})
            for name, of in said["results"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if strict:
            raise OSError(errno.EINVAL, f"its record {RECORD} is not one of Bitwright's", str(path)) from error
        return {}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock the record of a folder against other processes, if its file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- inputs and outputs


def require_apart(outputs: Iterable[Path], reads: Iterable[Path]) -> None:
    """Require that no output is an input, inside one, or around one; links and the case of letters are resolved.

    Raises:
        OutputError: an output overlaps an input.
    """
    sources = [Path(read) for read in reads]
    for output in outputs:
        for source in sources:
            relation = _relation(output, source)
            if relation:
                raise OutputError(
                    f"A result may not be written over, into or around what it is made from; {output} {relation} {source}, which is read: choose "
                    "another place by --out or -o."
                )


def _relation(output: Path, source: Path) -> str:
    place, place_behind = placed(output), output.resolve()
    if place_behind == source.resolve() or _same(output, source):
        return "is"
    if any(_same(above, source) for above in (*place.parents, *place_behind.parents)):
        return "lies in"
    if place.is_dir() and any(_same(above, output) for name in _names(source) for above in (*placed(name).parents, *name.resolve().parents)):
        return "holds"
    if any(_same(name, output) for name in _names(source)):
        return "is a file of"
    return ""


def _names(source: Path) -> list[Path]:
    """List an input, and the files in it if it is a folder: those may be links to other places."""
    try:
        return [source, *source.iterdir()] if source.is_dir() else [source]
    except OSError:
        return [source]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
