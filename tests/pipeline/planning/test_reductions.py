"""Optima within bits and one reduction each, beside brute force."""

from itertools import product

import numpy as np
import pytest

from bitwright.engines import NATIVE
from bitwright.pipeline.planning.reductions import by_reduction
from bitwright.spaces import Tensor, discover


def test_candidates_within_reductions_are_optima() -> None:
    """Three matrices whose sparse formats look best: brute force within bits, and within bits and each reduction."""
    units = discover([Tensor(f"blk.{i}.attn_q.weight", (8, 64), "F32") for i in range(3)])
    space = NATIVE.space(units, menu=("INT2_G64", "INT4_G64", "INT4_2OF4", "INT4_S50"), fixed_bytes=0, n_weights=1536)
    table = np.where(space.offered, np.random.default_rng(0).uniform(1, 2, space.offered.shape), np.nan)
    table[:, [bool(form.reduction) for form in space.formats]] /= 100
    within = {"alone": {""}, "and n of m": {"", "n of m"}, "and masks": {"", "masks"}}
    for size_bytes in (480, 700, 900):
        found = by_reduction(space, table, size_bytes, ())
        assert found.keys() == {f"knapsack, bits {words}" for words in within}
        for words, reductions in within.items():
            few = [int(f) for f in np.flatnonzero(space.offered[0]) if space.formats[f].reduction in reductions]
            fitting = [choice for choice in product(few, repeat=3) if space.total_bytes(np.array(choice)) <= size_bytes]
            least = min(sum(table[u, f] for u, f in enumerate(choice)) for choice in fitting)
            assert sum(table[u, f] for u, f in enumerate(found[f"knapsack, bits {words}"])) == pytest.approx(least)
    assert by_reduction(space, table, 400, ()) == {}  # smaller than two bits
    narrow = NATIVE.space(units, menu=("INT2_G64", "INT4_G64"), fixed_bytes=0, n_weights=1536)
    assert by_reduction(narrow, table, 900, ()) == {}
