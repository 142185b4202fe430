"""Choice among equal rows: which of the places of a row in an index is meant.

A row that is in one place decides by itself. Of several places the one next to where the rows before and after were found is meant, else one in the
matrix that most rows of the tensor are in, that a table of names gives the tensor, or that is in the same block; none twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.gguf.row_index import Hashes, Owner, Places, RowIndex
from bitwright.compress.models.gguf.value_matching import block_of

#: row of a matrix → whether another tensor has it
IsTaken = Callable[[Owner, int], bool]


@dataclass(frozen=True, eq=False)
class FoundRows:
    """Places of the rows that were found: in which of the matrices of `index`, and in which row of it, both `(n_rows,)`."""

    index: RowIndex
    owner: NDArray[np.int64]
    row: NDArray[np.int64]


def resolve(index: RowIndex, hashes: Hashes, *, tensor: str, hint: str, is_taken: IsTaken) -> FoundRows | None:
    """Return a place for each row of a tensor, `hashes` `(n_rows,)`, or None if one is nowhere.

    `hint` is the parameter that a table of names gives the tensor, empty for none.
    """
    places = index.find(hashes)
    if not len(hashes) or (places.counts == 0).any():
        return None
    alone = places.counts == 1
    found = FoundRows(index, np.where(alone, index.owner[places.first], -1), np.where(alone, index.row[places.first], -1))
    if not alone.all():
        _Choice(found, hashes, places, tensor, hint, is_taken).choose()
    return found


class _Choice:
    """Equal rows of one tensor, for which a place is chosen one by one."""

    def __init__(self, found: FoundRows, hashes: Hashes, places: Places, tensor: str, hint: str, is_taken: IsTaken) -> None:
        self._found, self._hashes, self._places, self._is_taken = found, hashes, places, is_taken
        self._owners = found.index.owners
        self._votes = np.bincount(found.owner[found.owner >= 0], minlength=len(self._owners))
        self._hinted = [i for i, owner in enumerate(self._owners) if owner.parameter == hint]
        self._here = np.array([block_of(owner.parameter) == block_of(tensor) for owner in self._owners])
        self._known = np.flatnonzero(found.owner >= 0)
        self._used: set[tuple[int, int]] = set()

    def choose(self) -> None:
        for i in np.flatnonzero(self._found.owner < 0).tolist():
            owner, row = next(self._near(i), None) or self._best(i)
            self._used.add((owner, row))
            self._found.owner[i], self._found.row[i] = owner, row

    def _near(self, i: int) -> Iterator[tuple[int, int]]:
        """Yield the places that the rows around row `i` suggest, as far as they hold it and are free."""
        owner, row = self._found.owner, self._found.row
        guesses = []
        if i > 0:
            guesses += [(int(owner[i - 1]), int(row[i - 1]) + 1), (int(owner[i - 1]) + 1, 0)]
        after = int(np.searchsorted(self._known, i))
        if after < len(self._known):
            known = int(self._known[after])
            guesses.append((int(owner[known]), int(row[known]) - (known - i)))
        if i == 0:
            guesses += [(hinted, 0) for hinted in self._hinted]
        for of_owner, at in guesses:
            if of_owner < len(self._owners) and self._holds(of_owner, at, i) and self._is_free(of_owner, at):
                yield of_owner, at

    def _holds(self, owner: int, row: int, i: int) -> bool:
        hashes = self._owners[owner].hashes
        return 0 <= row < len(hashes) and bool(hashes[row] == self._hashes[i])

    def _is_free(self, owner: int, row: int) -> bool:
        return (owner, row) not in self._used and not self._is_taken(self._owners[owner], row)

    def _best(self, i: int) -> tuple[int, int]:
        """Return the best of all places of row `i`; one that is used already only if there is no other."""
        index, entries = self._found.index, slice(int(self._places.first[i]), int(self._places.past[i]))
        places = list(zip(index.owner[entries].tolist(), index.row[entries].tolist(), strict=True))

        def merit(place: tuple[int, int]) -> tuple[bool, bool, int, bool, bool]:
            owner, row = place
            hinted, here = owner in self._hinted, bool(self._here[owner])
            return place not in self._used, not self._is_taken(self._owners[owner], row), int(self._votes[owner]), hinted, here

        return max(places, key=merit)
