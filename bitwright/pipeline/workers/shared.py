"""Values that are sent to workers, and are known there by their key."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

T = TypeVar("T", covariant=True)


class Shared(ABC, Generic[T]):
    """Value that a worker receives when it asks for it, at most once: two with the same `key` are equal. It can be pickled."""

    key: str

    @abstractmethod
    def get(self) -> T:
        """Return the value."""
