"""Spaces as a language model has them, beside the small ones of the contracts."""

import numpy as np
from hypothesis import settings

from bitwright.engines import LLAMA_CPP
from bitwright.spaces import BlockFormat, Space, Tensor, Unit
from bitwright.testing.instances import Table, budgets, every_choice, instances, losses, space_of

__all__ = ["Table", "budgets", "channels", "every_choice", "instances", "language_model", "losses", "space_of", "thorough"]

#: three times as many examples as the profile has, for solvers, whose instances are small
thorough = settings(max_examples=3 * settings.default.max_examples)


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
