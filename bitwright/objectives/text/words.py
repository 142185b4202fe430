"""Splitting of comma-separated lists whose names may contain commas themselves."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def between_commas(text: str, is_one: Callable[[str], bool]) -> list[str]:
    """Split `text` at commas; consecutive words are joined if together, with the commas, they are one name by `is_one`.

    >>> between_commas("a,b, c,d", lambda word: word == "b, c")
    ['a', 'b, c', 'd']
    """
    parts, found, start = text.split(","), list[str](), 0
    while start < len(parts):
        longer = range(len(parts), start + 1, -1)
        stop = next((stop for stop in longer if is_one(",".join(parts[start:stop]).strip())), start + 1)
        found.append(",".join(parts[start:stop]).strip())
        start = stop
    return [word for word in found if word]


def is_file(name: str) -> bool:
    """Return whether there is a file of that name; False for an invalid file name."""
    with suppress(OSError, ValueError):
        return Path(name).is_file()
    return False
