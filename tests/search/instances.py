"""Small random spaces and tables, a large one as a language model has it, and brute force."""

from itertools import product
from math import fsum

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.engines import LLAMA_CPP
from bitwright.spaces import BlockFormat, Choices, Space, Tensor, Unit

Table = NDArray[np.float64]

#: Losses on a coarse grid meet in many ties; the others need every digit.
_GRID = st.integers(-4, 12).map(lambda n: n / 8)
_FINE = st.floats(-1.0, 30.0, allow_nan=False).map(lambda x: round(x, 9))


def space_of(size_bits: list[list[int]], offered: list[list[bool]], *, fixed_bits: int = 0) -> Space:
    """A space with these sizes; every third unit is a tie of two tensors."""
    formats = tuple(BlockFormat(f"F{f}", 32, 8 + 2 * f) for f in range(len(size_bits[0])))
    units = tuple(
        Unit(f"u{u}", u, "kind", tuple(Tensor(f"u{u}.{t}", (32,), "F16") for t in range(2 if u % 3 == 0 else 1))) for u in range(len(size_bits))
    )
    return Space(units, formats, np.array(size_bits, dtype=np.int64), np.array(offered, dtype=np.bool_), fixed_bits, 32 * len(units))


@st.composite
def instances(draw: st.DrawFn, max_units: int = 5, max_formats: int = 4) -> tuple[Space, Table]:
    """A space and a table; what is not offered has a size and a loss that would be tempting, and the loss is at times NaN."""
    n_units, n_formats = draw(st.integers(1, max_units)), draw(st.integers(1, max_formats))
    loss = draw(st.sampled_from([_GRID, _FINE]))
    width = draw(st.sampled_from([6, 1000, 2**33]))

    def grid(cells: st.SearchStrategy) -> list[list]:
        return draw(st.lists(st.lists(cells, min_size=n_formats, max_size=n_formats), min_size=n_units, max_size=n_units))

    offered = grid(st.booleans())
    for row in offered:
        row[draw(st.integers(0, n_formats - 1))] = True
    space = space_of(grid(st.integers(0, width)), offered, fixed_bits=draw(st.integers(0, 50)))
    tempting = draw(st.sampled_from([-100.0, float("nan")]))
    return space, np.where(space.offered, np.array(grid(loss), dtype=np.float64), tempting)


def every_choice(space: Space) -> Choices:
    """All choices of offered pairs, in lexicographic order."""
    return np.array(list(product(*(np.flatnonzero(row) for row in space.offered))), dtype=np.int64)


def losses(table: Table, choices: Choices) -> NDArray[np.float64]:
    return np.array([fsum(table[np.arange(len(choice)), choice].tolist()) for choice in choices])


def budgets(space: Space, share: float) -> int:
    """A budget between the smallest file and one and a half times the largest."""
    totals = space.total_bits(every_choice(space))
    return int(totals.min() + share * 1.5 * (totals.max() - totals.min()))


def language_model(seed: int, *, shape_aware: bool) -> tuple[Space, Table]:
    """211 units as in SmolLM2-135M, with a tied embedding of a fifth of the weights, and losses of about `w * 4**-bits` with noise.

    Where not `shape_aware`, rows are of 256 weights, so that every unit is offered all 22 formats.
    """
    rng = np.random.default_rng(seed)
    matrices = [("q", 576, 576), ("k", 192, 576), ("v", 192, 576), ("o", 576, 576), ("gate", 1536, 576), ("up", 1536, 576), ("down", 576, 1536)]
    shapes = [("token_embd", 49152, 576)] + [(f"blk.{layer}.{name}", out, row) for layer in range(30) for name, out, row in matrices]
    units = tuple(Unit(name, -1, "kind", (Tensor(name, (out, row) if shape_aware else (out * row // 256, 256), "F16"),)) for name, out, row in shapes)
    space = LLAMA_CPP.space(units, menu=(), fixed_bytes=1_800_000, n_weights=134_515_008)
    weight = np.exp(rng.normal(0, 1, len(units))) * np.sqrt([unit.n_weights for unit in units])
    bits = np.array([form.bits_per_weight for form in space.formats])
    return space, 0.01 * weight[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.3, space.offered.shape))


def channels(n_units: int, seed: int) -> tuple[Space, Table]:
    """Rows of matrices of four widths at eight numbers of bits, one pair in ten not offered, and losses as in `language_model`."""
    rng = np.random.default_rng(seed)
    bits = np.array([2, 3, 4, 5, 6, 8, 10, 16])
    n_weights = rng.choice([512, 1024, 2048, 4096], n_units)
    offered = rng.random((n_units, len(bits))) < 0.9
    offered[:, 2] = True
    formats = tuple(BlockFormat(f"F{b}", 32, 4 * int(b)) for b in bits)
    space = Space((Unit("row", 0, "row", ()),) * n_units, formats, n_weights[:, None] * bits, offered, 999, int(n_weights.sum()))
    return space, np.exp(rng.normal(0, 1, n_units))[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.3, offered.shape))
