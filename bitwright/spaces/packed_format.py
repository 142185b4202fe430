"""Formats of a compressed-tensors checkpoint, `pack-quantized`, and the exact bytes a linear layer takes in each.

Layout: `compressors/pack_quantized` of the compressed-tensors package (0.20.0). A layer is four tensors: the codes of a row packed bit after bit into
32-bit words, a bfloat16 scale for each group of a row, the shape, and where zero is not in the middle of the codes, the codes that mean zero, packed
down the rows of each group's column.
"""

from dataclasses import dataclass
from math import prod

from bitwright.spaces.format import GGML_FORMATS, Format

_SCALE_BYTES = 2
_SHAPE_BYTES = 16  # two 64-bit integers
_WORD_BITS, _WORD_BYTES = 32, 4


@dataclass(frozen=True)
class PackedFormat(Format):
    """Codes of `bits` bits with a scale for every `group` weights of a row, or for the whole row where `group` is 0. A group must divide the row.

    `zero_points` says whether each group stores the code that means zero; else it is the one in the middle.
    """

    name: str
    bits: int
    group: int
    zero_points: bool
    needs_importance: bool = False

    @property
    def bits_per_weight(self) -> float:
        """See `Format.bits_per_weight`; the scale and zero point of a whole row are not counted."""
        overhead = 8 * _SCALE_BYTES + (self.bits if self.zero_points else 0)
        return self.bits + (overhead / self.group if self.group else 0.0)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether this is a matrix, or a stack of them, whose rows divide into whole groups."""
        return len(shape) > 1 and shape[-1] > 0 and (not self.group or shape[-1] % self.group == 0)

    def n_groups(self, n_columns: int) -> int:
        """Groups of a row of `n_columns` weights."""
        return n_columns // (self.group or n_columns)

    def n_words(self, n_columns: int) -> int:
        """32-bit words of the codes of a row."""
        return -(-n_columns * self.bits // _WORD_BITS)

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """See `Format.size_bytes`: each matrix of a stack is a layer of its own."""
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
