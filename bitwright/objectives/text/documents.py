"""Documents of files and datasets: prose, lines of JSON, tables of Parquet. The document of a row is a text, or a chat, which is formatted later with
the model's chat template.

Values that are not text (`null`, numbers, lone surrogates) are refused with their position and never converted. Lines end at `\\n` (`\\r\\n`) only:
U+2028, U+2029 and U+0085 may occur in JSON strings.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any

from bitwright.errors import LibraryError, TextError

_DATASET_ROWS = 20_000
_BETWEEN = "<|endoftext|>"
_TEXT, _MESSAGES = "text", "messages"
_LINES, _ROWS, _PARQUET, _SHEETS = (".jsonl", ".jsonlines", ".ndjson"), ".json", ".parquet", (".csv", ".tsv")


@dataclass(frozen=True)
class Chat:
    """Messages of a conversation, each with a `role` and a `content`, as chat templates expect them; `place` is their position in the file."""

    messages: tuple[Mapping[str, Any], ...]
    place: str


Document = str | Chat


def read_documents(path: Path, column: str = "") -> list[Document]:
    """Read the documents of a file: one per row of `.jsonl`, `.jsonlines`, `.ndjson`, `.json` (a list of objects, or lines) and `.parquet`, from the
    column `column`, or by default `text` or else `messages`; any other file is one text, split at `<|endoftext|>`.

    Raises:
        TextError: no such file, not UTF-8, a row without a text or messages, or only white space.
        LibraryError: a package that reads it is missing.
    """
    kind = path.suffix.lower()
    require_readable(path)
    if kind == _PARQUET:
        found = _documents(_parquet_rows(path, column), column)
    elif kind in _LINES:
        found = _documents(_rows_of_lines(_text_of(path), path), column)
    elif kind == _ROWS:
        found = _documents(_rows_of_json(_text_of(path), path), column)
    else:
        found = [document for part in _text_of(path).split(_BETWEEN) if (document := part.strip())]
    if not found:
        raise TextError(f"Text must not be empty; {path} is: give a file with text, or no --calibration.")
    return found


def require_readable(path: Path) -> None:
    """Require a regular text file, and the packages to read it, without reading it.

    Raises:
        TextError: see above.
        LibraryError: see above.
    """
    kind = path.suffix.lower()
    try:
        is_regular, reason = S_ISREG(path.stat().st_mode), "Not a regular file"
    except (OSError, ValueError) as error:  # file names cannot contain a zero byte
        is_regular, reason = False, str(error.strerror if isinstance(error, OSError) else error)
    if not is_regular:
        raise TextError(f"Text must be a readable file; {path} is not ({reason}): check the path.")
    if kind in _SHEETS:
        raise TextError(f"Text is prose, lines of JSON or a table of Parquet; {path} is a sheet: write its text as .jsonl, or rename it to .txt.")
    if kind == _PARQUET and find_spec("pyarrow") is None:
        raise LibraryError(f"Tables of Parquet need the package pyarrow, which is not installed; {path} is one: pip install 'bitwright[datasets]'.")


def dataset_documents(name: str, column: str = "") -> list[Document]:
    """Read documents of a dataset of the Hugging Face hub: `name[:configuration[:split[:column]]]`, by default its training split and the column of
    `read_documents`.

    Raises:
        LibraryError: the package `datasets` is not installed.
        TextError: the hub gives no such dataset or column, or its documents are empty.
    """
    dataset, configuration, split, named = (*name.split(":"), "", "", "", "")[:4]
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise _without_datasets(name) from error
    try:
        rows = library.load_dataset(dataset, configuration or None, split=split or "train", streaming=True)
        numbered = ((f"row {number} of {name}", row) for number, row in enumerate(islice(rows, _DATASET_ROWS), start=1))
        documents = _documents(numbered, named or column)
    except (OSError, ValueError, KeyError) as error:
        raise TextError(f"There is no file '{name}', and the hub gave no dataset of that name ({error}): check the name and the network.") from error
    if not documents:
        raise TextError(f"Text must not be empty; the first {_DATASET_ROWS} rows of {name} are: name another column.")
    return documents


def require_datasets(name: str) -> None:
    """Require the package `datasets` if the text is not a file.

    Raises:
        LibraryError: see above.
    """
    if find_spec("datasets") is None:
        raise _without_datasets(name)


def _without_datasets(name: str) -> LibraryError:
    return LibraryError(
        f"Text is a file, or a dataset where the package `datasets` is installed; there is no file '{name}': check the path or install datasets."
    )


def text_of_lines(path: Path, what: str) -> str:
    """Read a text file without a byte-order mark and with `\n` line ends; `what` names it in errors.

    Raises:
        TextError: it cannot be read, is not UTF-8, or has zero bytes, as UTF-16 and binary files do.
    """
    try:
        data = path.read_bytes()
        if 0 in data:
            raise TextError(
                f"{what} must be UTF-8; {path} has a zero byte (byte {data.index(0)}), so it is UTF-16 or no text: convert it, or give another file."
            )
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise TextError(f"{what} must be a readable file; {path} is not ({error.strerror}): check the path.") from error
    except UnicodeDecodeError as error:
        raise TextError(f"{what} must be UTF-8; {path} is not (byte {error.start}): convert it, or give another file.") from error


def require_sayable(text: str, place: str) -> str:
    """Return the text if it can be encoded: JSON may contain lone surrogates, which are not characters.

    Raises:
        TextError: it cannot be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"Text must be of whole characters; {place} has half of a pair, \\u{ord(text[error.start]):04x}: mend it.") from error
    return text


def _text_of(path: Path) -> str:
    return text_of_lines(path, "Text")


def _rows_of_lines(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Yield each line of JSON with its position."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number} of {path}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TextError(
                    f"Every line of a {path.suffix} file must be an object of JSON with a '{_TEXT}'; line {number} of {path} is not: mend it, or "
                    "rename the file to .txt."
                ) from error


def _rows_of_json(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Yield each item of a JSON list with its position, or a single object; a file that is not JSON as a whole is read as lines."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        yield from _rows_of_lines(text, path)
        return
    items = whole if isinstance(whole, list) else [whole]
    yield from ((f"item {number} of {path}", item) for number, item in enumerate(items, start=1))


def _parquet_rows(path: Path, column: str) -> Iterator[tuple[str, object]]:
    """Yield each row with its position, reading only the requested column."""
    try:
        table = importlib.import_module("pyarrow.parquet").ParquetFile(path)
        name = _column(table.schema_arrow.names, column, str(path))
        rows = (row for batch in table.iter_batches(columns=[name]) for row in batch.to_pylist())
        yield from ((f"row {number} of {path}", row) for number, row in enumerate(rows, start=1))
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split()).rstrip(".")
        raise TextError(f"A table of Parquet must be whole; {path} cannot be read ({told}): download or write it again.") from error


def _documents(rows: Iterable[tuple[str, object]], column: str) -> list[Document]:
    """List the documents of rows, each with its position, without those that are white space."""
    found = (_document(row, column, place) for place, row in rows)
    return [document for document in found if document]


def _document(row: object, column: str, place: str) -> Document:
    if not isinstance(row, Mapping):
        raise TextError(f"A row of text must be an object with a '{column or _TEXT}'; {place} is {_kind(row)}: mend it, or rename the file to .txt.")
    name = _column(row, column, place)
    value = row[name]
    if isinstance(value, str):
        return require_sayable(value, place).strip()
    if isinstance(value, list) and value and all(map(_is_message, value)):
        for message in value:
            require_sayable(f"{message['role']}{message.get('content') or ''}", place)
        return Chat(tuple({key: part for key, part in message.items() if part is not None} for message in value), place)
    raise TextError(
        f"A row's '{name}' must be a text, or a list of messages with a role and a content; that of {place} is {_kind(value)}: leave it out, or "
        "name another column with --text-column."
    )


def _column(names: Iterable[str], column: str, place: str) -> str:
    """Return the column of `names` that holds the text."""
    known = list(names)
    name = column or next((name for name in (_TEXT, _MESSAGES) if name in known), _TEXT)
    if name not in known:
        told = ", ".join(f"'{key}'" for key in known[:8]) or "nothing"
        raise TextError(f"A row of text must have a '{name}'; {place} has {told}: name its column with --text-column.")
    return name


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _kind(value: object) -> str:
    kinds = {
        "NoneType": "null",
        "list": "a list of something else",
        "dict": "an object",
        "int": "a number",
        "float": "a number",
        "bool": "true or false",
    }
    name = type(value).__name__
    return kinds.get(name, "a text" if name == "str" else f"of type {name}")
