"""Small files that people and other tools write, read whole: the one door for plans, profiles, configurations and recipes.

Whatever lies behind a path, what is raised is an OSError or a ValueError, for which each caller has its own sentence: a pipe or a device is no file,
a file is only as long as such a file may be, and a text may not nest deeper than its reader can follow.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitwright.whole_files import regular

#: bytes of the longest file: a tokenizer of a million words has some 100 MB, everything else far less
TOKENIZER_BYTES, TEXT_BYTES = 2**28, 2**24
_DEEPEST = 64  # lists within lists; a tokenizer's description has about ten


def small_text(path: Path, *, at_most: int = TEXT_BYTES) -> str:
    """Read the UTF-8 text of a regular file of `at_most` bytes.

    Raises:
        OSError: it is no regular file, or cannot be read.
        ValueError: it is longer, or is not UTF-8.
    """
    with regular(path).open("rb") as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise ValueError(f"it is longer than {at_most:,} bytes")
    return data.decode("utf-8")


def small_json(path: Path, *, at_most: int = TEXT_BYTES) -> dict[str, Any]:
    """Read a JSON object from such a file.

    Raises:
        OSError: it cannot be read.
        ValueError: see `small_text` and `json_object`.
    """
    return json_object(small_text(path, at_most=at_most))


def json_object(text: str) -> dict[str, Any]:
    """Parse `text` as a JSON object.

    Raises:
        ValueError: it is none, nests too deeply, says a key twice, or holds a number that JSON has not.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    require_shallow(found)
    return found


def require_shallow(value: Any) -> None:
    """Refuse a value whose lists and mappings lie deeper in each other than those of anything that is meant.

    Raises:
        ValueError: they do.
    """
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError("it nests too deeply")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it says '{key[:40]}' twice")
        found[key] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
