"""Size limit of a finished file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SizeLimit:
    """Budget: the finished file has at most `size_bytes` bytes."""

    size_bytes: int
