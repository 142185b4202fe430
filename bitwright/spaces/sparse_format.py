"""Formats with fewer weights: the codes of those that are kept, packed as if they were the whole row, and their positions.

    INT4_2OF4   two of every four weights of a row, in 4 bits        INT4_S50   half of the weights of every row, wherever they are, in 4 bits

Shares other than a quarter, a half and three quarters have names too, up to a thousandth of a percent (`INT4_S37.5`), see `share_format`.

A row is the row of the `base` format of the kept weights alone, in their order, so that groups with a scale are groups of kept weights; then the
positions. Those of n of m are the index of one of the C(m, n) patterns for every m weights, 3 bits for 2 of 4 (the index of SparseGPT and of
NVIDIA's kernels takes 4). Those of a share are a mask of one bit a weight. Every row keeps equally many (as in Wanda, Sun et al., ICLR 2024), so that
sizes are exact before a weight is read, and rows can be read one by one.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import comb, prod
from typing import ClassVar

from bitwright.spaces.format import INTEGER_FORMATS, BlockFormat, Format, IntegerFormat

_PERCENT = 1_000  # thousandths
_WHOLE = 100 * _PERCENT
_SHARE = re.compile(r"([A-Z]+\d+)_S(\d{1,2}(?:\.\d{1,3})?)")


class Pattern(ABC):
    """Positions that the kept weights of a row may have."""

    @property
    @abstractmethod
    def reduction(self) -> str:
        """Word for patterns of this kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the pattern, a suffix of the format's."""

    @property
    @abstractmethod
    def density(self) -> float:
        """PrunedShare of the weights of a long row that are kept."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits of the positions for each weight of a long row."""

    @property
    @abstractmethod
    def condition(self) -> str:
        """Condition on the rows that can have the pattern, in words."""

    @abstractmethod
    def fits(self, n_columns: int) -> bool:
        """Return whether a row of `n_columns` weights can have the pattern."""

    @abstractmethod
    def n_kept(self, n_columns: int) -> int:
        """Return the number of weights that a row of `n_columns` keeps."""

    @abstractmethod
    def size_bytes(self, n_columns: int) -> int:
        """Return the bytes of the positions of a row of `n_columns` weights."""


@dataclass(frozen=True)
class NOfM(Pattern):
    """Pattern of `kept` weights among every `of` consecutive ones; `of` must divide the row."""

    kept: int
    of: int

    @property
    def reduction(self) -> str:
        """Return "n of m"."""
        return "n of m"

    @property
    def name(self) -> str:
        """Return the name, such as `2OF4`."""
        return f"{self.kept}OF{self.of}"

    @property
    def density(self) -> float:
        """Return n / m."""
        return self.kept / self.of

    @property
    def code_bits(self) -> int:
        """Bits of the index of a pattern."""
        return (comb(self.of, self.kept) - 1).bit_length()

    @property
    def bits(self) -> float:
        """Return the bits of an index over m."""
        return self.code_bits / self.of

    @property
    def condition(self) -> str:
        """Return that m must divide a row."""
        return f"{self.of} must divide a row"

    def fits(self, n_columns: int) -> bool:
        """Return whether m divides the row."""
        return n_columns > 0 and n_columns % self.of == 0

    def n_kept(self, n_columns: int) -> int:
        """Return n of every m weights."""
        return n_columns // self.of * self.kept

    def size_bytes(self, n_columns: int) -> int:
        """Return the bytes of the packed indices of a row."""
        return -(-n_columns // self.of * self.code_bits // 8)


@dataclass(frozen=True)
class PrunedShare(Pattern):
    """Pattern of a row without a share of its weights, `pruned` thousandths of a percent, rounded down to a weight, and no other condition."""

    pruned: int

    @property
    def reduction(self) -> str:
        """Return "masks"."""
        return "masks"

    @property
    def name(self) -> str:
        """Return the name, such as `S50` or `S37.5`."""
        return f"S{self.pruned / _PERCENT:g}"

    @property
    def density(self) -> float:
        """Return the share that is not pruned."""
        return 1 - self.pruned / _WHOLE

    @property
    def bits(self) -> float:
        """Return 1, a bit of the mask."""
        return 1.0

    @property
    def condition(self) -> str:
        """Return that there must be a row."""
        return "a row must have a weight"

    def fits(self, n_columns: int) -> bool:
        """Return whether there is a row."""
        return n_columns > 0

    def n_kept(self, n_columns: int) -> int:
        """Return the weights that are not pruned."""
        return n_columns - n_columns * self.pruned // _WHOLE

    def size_bytes(self, n_columns: int) -> int:
        """Return the bytes of the mask of a row."""
        return -(-n_columns // 8)


@dataclass(frozen=True)
class SparseFormat(Format):
    """Kept weights in the format `base`, and their positions in a `pattern`."""

    name: str
    base: IntegerFormat | BlockFormat
    pattern: Pattern
    needs_importance: bool = False

    only_named: ClassVar[bool] = True

    @property
    def reduction(self) -> str:
        """Return that of the pattern."""
        return self.pattern.reduction

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of the kept share and of the positions."""
        return self.pattern.density * self.base.bits_per_weight + self.pattern.bits

    @property
    def condition(self) -> str:
        """Return that of the pattern."""
        return self.pattern.condition

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether the rows can have the pattern."""
        return self.pattern.fits(shape[-1])

    def kept_bytes(self, n_columns: int) -> int:
        """Return the bytes of the kept weights of a row of `n_columns`, which come before their positions."""
        return self.base.size_bytes((1, self.pattern.n_kept(n_columns)))

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of kept weights and positions of all rows."""
        n_columns = shape[-1]
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores a pattern of {self.pattern.name}, which does not fit a row of {n_columns}")
        return prod(shape[:-1]) * (self.kept_bytes(n_columns) + self.pattern.size_bytes(n_columns))


_PATTERNS = PrunedShare(25_000), NOfM(4, 8), NOfM(2, 4), PrunedShare(50_000), NOfM(1, 4), PrunedShare(75_000)
_BF16 = next(form for form in INTEGER_FORMATS if isinstance(form, BlockFormat) and form.name == "BF16")
_GROUP = 64
_BASES = {"BF16": _BF16} | {f"INT{form.bits}": form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat) and form.group == _GROUP}

#: bfloat16 and integers of 8 to 2 bits in groups of 64 kept weights, each in every pattern: `INT4_2OF4`, `INT4_4OF8`, `INT4_1OF4`, `INT4_S25` …
SPARSE_FORMATS = tuple(SparseFormat(f"{name}_{pattern.name}", base, pattern) for name, base in _BASES.items() for pattern in _PATTERNS)


def share_format(name: str) -> SparseFormat | None:
    """Return the format of a share of each row called `name` (`INT4_S37.5`), None where there is none of that name."""
    found = _SHARE.fullmatch(name)
    if found is None or found[1] not in _BASES:
        return None
    whole, _, rest = found[2].partition(".")
    form = without_share(found[1], _PERCENT * int(whole) + int(rest.ljust(3, "0")))
    return form if form.name == name and form.pattern.density < 1 else None


def without_share(base: str, pruned: int) -> SparseFormat:
    """Return the format of rows without `pruned` thousandths of a percent of their weights, the others in the format of the name `base`."""
    pattern = PrunedShare(pruned)
    return SparseFormat(f"{base}_{pattern.name}", _BASES[base], pattern)
