"""Differentiable allocation as a method: what it asks of a problem, its golden course on a loss without interactions, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright.engines import NATIVE
from bitwright.errors import UserError
from bitwright.methods import method_named
from bitwright.search import Problem, Trials, solve
from bitwright.spaces import DROP, Tensor, discover
from tests.methods.golden import between, dense
from tests.sentences import sentence

RELAXED = method_named("relaxed")


def test_without_interactions_it_ends_at_the_optimum_that_the_slopes_say_not_the_tables() -> None:
    space = dense({0: (64, 32, 96), 1: (64, 32, 96)})
    rng = np.random.default_rng(0)
    true = np.where(space.offered, np.exp(rng.normal(0, 1, (6, 1))) * 4.0 ** -np.array([form.bits_per_weight for form in space.formats]), 0.0)
    read: list[int] = []

    def mix(shares: NDArray[np.float64], sequences: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        read.append(len(sequences))
        inner = (shares * true).sum(axis=1, keepdims=True)
        return float(inner.sum()), np.where(space.offered, true - inner, 0.0)

    budget_bits = between(space, 0.45)
    problem = Problem(space, np.zeros((0, 6), dtype=np.int64), 16, 3, tables=(np.where(space.offered, 1.0, np.nan),), mix=mix)
    strategy, asked = RELAXED.for_budget(problem, budget_bits), []
    while len(read) < 72 and not (question := strategy.ask()).is_last:
        asked += [choice.tolist() for choice in question.choices]
        values = np.array([[true[np.arange(6), choice].sum()] for choice in question.choices])
        strategy.tell(Trials(question.choices, values, np.full_like(values, 1e-3), np.full(len(values), question.n_sequences)))
    optimum = solve(space, true, budget_bits).choice.tolist()
    assert optimum in asked
    assert asked[0] != optimum
    assert set(read) == {8}


def test_formats_without_weights_are_refused() -> None:
    tensors = [Tensor(f"blk.0.ffn_up_exps.{expert}.weight", (64, 64), "F32") for expert in range(4)]
    space = NATIVE.space(discover(tensors), menu=("INT2_ROW", "INT4_ROW"), fixed_bytes=100, n_weights=4 * 64 * 64)
    RELAXED.require_space(space)
    offered = space.offered.copy()
    offered[1:, space.formats.index(DROP)] = True
    with pytest.raises(UserError) as caught:
        RELAXED.require_space(replace(space, offered=offered))
    sentence(caught.value, "relaxed", "DROP", "--method auto")
