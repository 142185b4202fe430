"""Words between commas, of which some are names that hold commas themselves."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def between_commas(text: str, is_one: Callable[[str], bool]) -> list[str]:
    """The words of `text` between commas; where several in a row, with the commas between them, are one word by `is_one`, they stay together.

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
    """Whether there is a file of that name; a name that no file can have is none."""
    with suppress(OSError, ValueError):
        return Path(name).is_file()
    return False
