"""Packed integer formats of compressed-tensors checkpoints (`pack-quantized`), and the exact bytes of a linear layer in each.

Layout: `compressors/pack_quantized` of the compressed-tensors package (0.20.0). A layer is three or four tensors: the codes of
a row packed bit after bit into 32-bit words, one bfloat16 scale per group of a row, the shape, and for asymmetric integers the zero points, packed
down the rows of each group's column.
"""

from dataclasses import dataclass
from math import prod

from bitwright.spaces.format import GGML_FORMATS, Format, Scheme

_SCALE_BYTES = 2
_SHAPE_BYTES = 16  # two 64-bit integers
_WORD_BITS, _WORD_BYTES = 32, 4


@dataclass(frozen=True)
class PackedFormat(Format):
    """Integer codes of `bits` bits with one scale per `group` weights, or per row where `group` is 0. `group` must divide the row.

    `zero_points` says whether each group stores a zero point (asymmetric); else zero is the middle code (symmetric).
    """

    name: str
    bits: int
    group: int
    zero_points: bool
    needs_importance: bool = False

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of a code and its share of scale and zero point; those of a whole row are not counted."""
        overhead = 8 * _SCALE_BYTES + (self.bits if self.zero_points else 0)
        return self.bits + (overhead / self.group if self.group else 0.0)

    @property
    def scheme(self) -> Scheme:
        """Return the scheme of integers in groups, symmetric unless zero points are stored."""
        return Scheme(self.bits, self.group, symmetric=not self.zero_points)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is that of a matrix, or of a stack of matrices, whose rows `group` divides."""
        return len(shape) > 1 and shape[-1] > 0 and (not self.group or shape[-1] % self.group == 0)

    def n_groups(self, n_columns: int) -> int:
        """Number of groups in a row of `n_columns` weights."""
        return n_columns // (self.group or n_columns)

    def n_words(self, n_columns: int) -> int:
        """Number of 32-bit words that the codes of a row take."""
        return -(-n_columns * self.bits // _WORD_BITS)

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of packed words, scales and zero points; each matrix of a stack is a layer of its own."""
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores groups of {self.group} weights, which do not divide a row of {shape[-1]}")
        n_rows, n_columns = shape[-2:]
        zeros = -(-n_rows * self.bits // _WORD_BITS) * _WORD_BYTES * self.n_groups(n_columns) if self.zero_points else 0
        row = _WORD_BYTES * self.n_words(n_columns) + _SCALE_BYTES * self.n_groups(n_columns)
        return prod(shape[:-2]) * (n_rows * row + zeros + _SHAPE_BYTES)


_GROUPS = {32: "G32", 64: "G64", 128: "G128", 0: "ROW"}

#: Floats, and packed integers of 8 to 2 bits: `W4_G64` is symmetric, `W4_G64_ZP` has zero points. From the finest to the coarsest.
PACKED_FORMATS = (
    *GGML_FORMATS[:3],
    *(
        PackedFormat(f"W{bits}_{name}{'_ZP' if zero_points else ''}", bits, group, zero_points)
        for bits in range(8, 1, -1)
        for group, name in _GROUPS.items()
        for zero_points in (True, False)
    ),
)
