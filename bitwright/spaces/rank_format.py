"""Formats with a pair of low rank: a packed matrix plus the product of two narrow ones, or that product alone.

    INT2_R16   W ≈ Q + L R, Q in 2 bits, L (n_rows, 16) and R (16, n_columns) in 8 bits        SVD_R64   W ≈ L R

The shape of SLiM (Mozaffari, Yazdanbakhsh & Mehri Dehnavi, ICML 2025), CALDERA (Saha et al., NeurIPS 2024) and SVD-LLM (Wang et al., ICLR 2025). Each
row has its codes of Q, its r codes of L and their scale; after all rows, each column has its r codes of R and their scale: what the rows share. So
the product of a row and a column is a sum of integers, exact in any order of addition, times two scales. A matrix has no more ranks than rows or
columns, and a stack of matrices no common pair.
"""

from dataclasses import dataclass
from typing import ClassVar

from bitwright.spaces.format import INTEGER_FORMATS, SIGN_FORMATS, Format, IntegerFormat, SignFormat

_SCALE_BYTES = 2
_USUAL = 1024


@dataclass(frozen=True)
class RankFormat(Format):
    """Matrix in the format `base`, or nothing where that is None, plus a pair of `rank` in 8 bits with a scale for each row and each column."""

    name: str
    base: IntegerFormat | SignFormat | None
    rank: int
    needs_importance: bool = False

    only_named: ClassVar[bool] = True

    @property
    def reduction(self) -> str:
        """Return "low rank"."""
        return "low rank"

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of a weight of a square matrix of 1,024 rows, without the scales of the pair: its share depends on the shape."""
        return (self.base.bits_per_weight if self.base else 0.0) + 16 * self.rank / _USUAL

    @property
    def condition(self) -> str:
        """Return that a matrix must have the rank."""
        return f"a matrix must have {self.rank} rows and columns or more"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is that of one matrix with at least so many rows and columns."""
        return len(shape) == 2 and 0 < self.rank <= min(shape)

    def base_bytes(self, n_columns: int) -> int:
        """Return the bytes of a row of the packed matrix."""
        return self.base.size_bytes((1, n_columns)) if self.base else 0

    @property
    def factor_bytes(self) -> int:
        """Bytes of the codes and the scale of a row or column in its factor."""
        return self.rank + _SCALE_BYTES

    def shared_bytes(self, n_columns: int) -> int:
        """Return the bytes of the right factor, which all rows share."""
        return n_columns * self.factor_bytes

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of the packed matrix and of the pair."""
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores one matrix with a rank of at least {self.rank}, which {shape} is not")
        return shape[0] * (self.base_bytes(shape[1]) + self.factor_bytes) + self.shared_bytes(shape[1])


_RANKS = 8, 16, 32, 64
_GROUP = 64
_INTEGERS = (form for form in (*INTEGER_FORMATS, *SIGN_FORMATS) if isinstance(form, IntegerFormat | SignFormat))
_BASES = {f"INT{form.bits}": form for form in _INTEGERS if form.group == _GROUP}

#: integers of 8 bits to one in groups of 64 with a pair of rank 8 to 64, and pairs alone, up to rank 256
RANK_FORMATS = (
    *(RankFormat(f"{name}_R{rank}", base, rank) for name, base in _BASES.items() for rank in reversed(_RANKS)),
    *(RankFormat(f"SVD_R{rank}", None, rank) for rank in (256, 128, *reversed(_RANKS))),
)
