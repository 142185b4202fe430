"""Size limit of a finished file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SizeLimit:
    """Budget: the finished file has at most `size_bytes` bytes. None in its place: a run without a budget, or a search for the whole front."""

    size_bytes: int
