"""A storage format of weights and the exact number of bits a tensor takes in it.

Block sizes and bytes of the ggml types: `ggml-common.h` of llama.cpp (a block of `block` consecutive weights of a row is stored in
`block_bytes` bytes, scales included). A contract test holds this table to `ggml_row_size` of the linked library.
"""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Format:
    """One way to store a tensor.

    `block` weights that lie side by side in a row share `block_bytes` bytes; a row that `block` does not divide cannot be stored.
    `needs_importance` marks formats so coarse that their quantizer refuses to work without an importance matrix.
    """

    name: str
    block: int
    block_bytes: int
    needs_importance: bool = False

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight, scales included."""
        return 8 * self.block_bytes / self.block

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the rows of a tensor of this `shape` (row length last) divide into whole blocks."""
        return shape[-1] % self.block == 0

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this `shape` (row length last), without padding after it.

        Raises:
            ValueError: the row length is not a multiple of the block.
        """
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores blocks of {self.block} weights, which do not divide a row of {shape[-1]}")
        return prod(shape) // self.block * self.block_bytes


#: Every type that libggml can quantize to, from the finest to the coarsest.
GGML_FORMATS = (
    Format("F32", 1, 4),
    Format("F16", 1, 2),
    Format("BF16", 1, 2),
    Format("Q8_0", 32, 34),
    Format("Q6_K", 256, 210),
    Format("Q5_1", 32, 24),
    Format("Q5_K", 256, 176),
    Format("Q5_0", 32, 22),
    Format("Q4_1", 32, 20),
    Format("Q4_K", 256, 144),
    Format("Q4_0", 32, 18),
    Format("IQ4_NL", 32, 18),
    Format("IQ4_XS", 256, 136),
    Format("Q3_K", 256, 110),
    Format("IQ3_S", 256, 110),
    Format("IQ3_XXS", 256, 98),
    Format("Q2_K", 256, 84),
    Format("IQ2_S", 256, 82),
    Format("IQ2_XS", 256, 74, needs_importance=True),
    Format("IQ2_XXS", 256, 66, needs_importance=True),
    Format("IQ1_M", 256, 56, needs_importance=True),
    Format("IQ1_S", 256, 50, needs_importance=True),
)
