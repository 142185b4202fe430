"""Storage formats of weights, and the exact size of a tensor in each.

Block sizes and bytes of the ggml types: `ggml-common.h` of llama.cpp (a block of `block` consecutive weights of a row is stored in
`block_bytes` bytes, scales included). A contract test holds this table to `ggml_row_size` of the linked library. The integer formats are those of
AMQ (Lee et al., EMNLP 2025) and most papers: a scale and a minimum for each group of a row, both in half precision.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

_SEARCHED = "IQ1_", "IQ2_", "IQ3_"  # by libggml, block by block


@dataclass(frozen=True)
class Scheme:
    """Quantization scheme as the plan files of other tools express it: bits, group size (0 for a row), and whether it is symmetric.

    Some tools also express floats of as many bits (`floats`), and inputs of the layer quantized to the same type (`inputs`).
    """

    bits: int
    group: int
    symmetric: bool
    floats: bool = False
    inputs: bool = False


class Format(ABC):
    """Storage format of a tensor.

    `needs_importance` marks formats so coarse that their quantizer refuses to work without an importance matrix, `only_named` formats that a space
    offers only where its menu names them.
    """

    name: str
    needs_importance: bool
    only_named: ClassVar[bool] = False

    @property
    def reduction(self) -> str:
        """Word for what the format does beside rounding, empty where it does nothing else."""
        return ""

    @property
    def scheme(self) -> Scheme | None:
        """Quantization scheme of the format as other tools express it, None where they do not."""
        return None

    @property
    def is_slow(self) -> bool:
        """Return whether quantizing to it takes many times as long as rounding."""
        return False

    @property
    def condition(self) -> str:
        """Condition on the matrices that it fits, in words; empty where a menu may name it for a model that has none."""
        return ""

    @property
    @abstractmethod
    def bits_per_weight(self) -> float:
        """Stored bits per weight of a long row, scales included."""

    @abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor of this `shape` (row length last) can be stored in the format."""

    @abstractmethod
    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a tensor of this `shape` (row length last), without padding after it.

        Raises:
            ValueError: the tensor does not fit.
        """

    def shared_bytes(self, n_columns: int) -> int:  # noqa: ARG002
        """Return the bytes behind all rows of a matrix that the rows share, none where they are stored one by one."""
        return 0


@dataclass(frozen=True)
class BlockFormat(Format):
    """Block format of ggml: each `block` consecutive weights of a row take `block_bytes` bytes; `block` must divide the row."""

    name: str
    block: int
    block_bytes: int
    needs_importance: bool = False

    @property
    def is_slow(self) -> bool:
        """Return whether it is a type of a codebook, which libggml searches for every few weights."""
        return self.name.startswith(_SEARCHED)

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of a block over its weights."""
        return 8 * self.block_bytes / self.block

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `block` divides the row."""
        return shape[-1] % self.block == 0

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of all blocks."""
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores blocks of {self.block} weights, which do not divide a row of {shape[-1]}")
        return prod(shape) // self.block * self.block_bytes


@dataclass(frozen=True)
class IntegerFormat(Format):
    """Integer codes of `bits` bits, with a scale and a minimum (2 bytes each) per group of `group` weights, or per row where `group` is 0.

    The last group of a row may be short, so every row fits. The codes of a row fill whole bytes.
    """

    name: str
    bits: int
    group: int
    needs_importance: bool = False

    @property
    def bits_per_weight(self) -> float:
        """Return the bits of a code and its share of scale and minimum; those of a whole row are not counted."""
        return self.bits + (32 / self.group if self.group else 0.0)

    @property
    def scheme(self) -> Scheme:
        """Return the scheme of asymmetric integers in groups."""
        return Scheme(self.bits, self.group, symmetric=False)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` has a row to store."""
        return shape[-1] > 0

    def n_groups(self, n_columns: int) -> int:
        """Number of groups in a row of `n_columns` weights, a short last one counted."""
        return -(-n_columns // (self.group or n_columns))

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of codes, scales and minima."""
        n_columns = shape[-1]
        return prod(shape[:-1]) * (-(-n_columns * self.bits // 8) + 4 * self.n_groups(n_columns))


@dataclass(frozen=True)
class SignFormat(Format):
    """Format of one bit a weight: the sign, with a scale (2 bytes) per group of `group` weights, or per row where `group` is 0.

    As XNOR-Net (Rastegari et al., ECCV 2016) and the 1-bit experts of MC-MoE (Huang et al., ICLR 2025); coarser than most models bear, so it is
    offered only where the menu names it.
    """

    name: str
    group: int
    needs_importance: bool = False

    bits: ClassVar[int] = 1
    only_named: ClassVar[bool] = True

    @property
    def bits_per_weight(self) -> float:
        """Return 1 and a weight's share of the scale; that of a whole row is not counted."""
        return 1 + (16 / self.group if self.group else 0.0)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` has a row to store."""
        return shape[-1] > 0

    def n_groups(self, n_columns: int) -> int:
        """Number of groups in a row of `n_columns` weights, a short last one counted."""
        return -(-n_columns // (self.group or n_columns))

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of signs and scales."""
        n_columns = shape[-1]
        return prod(shape[:-1]) * (-(-n_columns // 8) + 2 * self.n_groups(n_columns))


@dataclass(frozen=True)
class Absence(Format):
    """Pruned: nothing is stored, and the unit computes as if its weights were zero."""

    name: str
    needs_importance: bool = False

    only_named: ClassVar[bool] = True

    @property
    def bits_per_weight(self) -> float:
        """Return 0."""
        return 0.0

    def fits(self, shape: tuple[int, ...]) -> bool:  # noqa: ARG002
        """Return True for every shape."""
        return True

    def size_bytes(self, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        """Return 0."""
        return 0


@dataclass(frozen=True)
class DroppedExpert(Absence):
    """Dropped expert: not stored, and the router cannot choose it.

    `replacement` is the index of the expert that its tokens are rerouted to, -1 for none; it is known in a finished model, not yet in a space.
    """

    name: str = "DROP"
    replacement: int = -1


DROP, PRUNE = DroppedExpert(), Absence("PRUNE")
#: names of the formats that store nothing
ABSENT = frozenset({DROP.name, PRUNE.name})

#: Every type that libggml can quantize to, from the finest to the coarsest.
GGML_FORMATS = (
    BlockFormat("F32", 1, 4),
    BlockFormat("F16", 1, 2),
    BlockFormat("BF16", 1, 2),
    BlockFormat("Q8_0", 32, 34),
    BlockFormat("Q6_K", 256, 210),
    BlockFormat("Q5_1", 32, 24),
    BlockFormat("Q5_K", 256, 176),
    BlockFormat("Q5_0", 32, 22),
    BlockFormat("Q4_1", 32, 20),
    BlockFormat("Q4_K", 256, 144),
    BlockFormat("Q4_0", 32, 18),
    BlockFormat("IQ4_NL", 32, 18),
    BlockFormat("IQ4_XS", 256, 136),
    BlockFormat("Q3_K", 256, 110),
    BlockFormat("IQ3_S", 256, 110),
    BlockFormat("IQ3_XXS", 256, 98),
    BlockFormat("Q2_K", 256, 84),
    BlockFormat("IQ2_S", 256, 82),
    BlockFormat("IQ2_XS", 256, 74, needs_importance=True),
    BlockFormat("IQ2_XXS", 256, 66, needs_importance=True),
    BlockFormat("IQ1_M", 256, 56, needs_importance=True),
    BlockFormat("IQ1_S", 256, 50, needs_importance=True),
)

GGML_BY_NAME = {form.name: form for form in GGML_FORMATS}

_GROUPS = {32: "G32", 64: "G64", 128: "G128", 0: "ROW"}

#: Floats, and integers of 8 to 2 bits in groups of 32, 64 and 128 weights or of a whole row, from the finest to the coarsest.
INTEGER_FORMATS = (
    *GGML_FORMATS[:3],
    *(IntegerFormat(f"INT{bits}_{name}", bits, group) for bits in range(8, 1, -1) for group, name in _GROUPS.items()),
)

#: Signs, with a scale for each group or row.
SIGN_FORMATS = tuple(SignFormat(f"INT1_{name}", group) for group, name in _GROUPS.items())
