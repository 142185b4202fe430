"""Differentiable allocation: the contract, where a descent ends, and the budget of mixtures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright.search import Problem, RelaxedOptions, Strategy, relaxed, solve
from bitwright.search.strategies.problem import Mix
from bitwright.testing.strategy_contract import LARGE, SMALL, WIDER, BudgetContract, Landscape, choices_of, exactly, problem, searched

pytestmark = pytest.mark.slow

KNOWN = {known.space.offered.shape: known for known in (SMALL, LARGE, WIDER)}
FAST = RelaxedOptions(n_rounds=6, n_steps=2)


def mixing(known: Landscape) -> Mix:
    """Return the loss of mixtures: that of the mean losses of the units."""
    table = np.where(known.space.offered, known.table, 0.0)

    def mix(shares: NDArray[np.float64], sequences: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        assert shares.sum(axis=1) == pytest.approx(1)
        assert (shares[~known.space.offered] == 0).all()
        assert len(np.unique(sequences)) == len(sequences)
        lost = (shares * table).sum(axis=1)
        beside = np.convolve(lost, [1, 0, 1], mode="same")
        by_share = table * (1 + known.coupling * beside)[:, None]
        inner = (shares * by_share).sum(axis=1, keepdims=True)
        return float(lost.sum() + known.coupling * (lost[1:] * lost[:-1]).sum()), np.where(known.space.offered, by_share - inner, 0.0)

    return mix


class TestRelaxed(BudgetContract):
    n_to_best = 150

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        known = KNOWN[problem.space.offered.shape]
        table = np.where(known.space.offered, 1.0, np.nan)  # says nothing
        return relaxed(problem, budget_bits, table=table, mix=mixing(known), options=FAST)


def test_a_descent_finds_what_the_table_does_not_know() -> None:
    true, wrong = LARGE.table, np.where(LARGE.space.offered, LARGE.table[::-1], 0.0)
    wrong[~LARGE.space.offered[::-1]] = 1.0
    strategy = relaxed(problem(LARGE.space), LARGE.middle_bits(), table=wrong, mix=mixing(LARGE), options=RelaxedOptions())
    found = choices_of(searched(strategy, exactly(LARGE), n=13))  # the table's optimum, and what each round of the first descent ends at
    values, best = LARGE(found), LARGE(solve(LARGE.space, true, LARGE.middle_bits()).choice[None])[0]
    assert values.min() <= 1.05 * best < 0.9 * values[0]


def test_mixtures_spend_the_budget_from_the_second_step_on() -> None:
    spent: list[float] = []
    bits = np.where(LARGE.space.offered, LARGE.space.size_bits, 0)

    def mix(shares: NDArray[np.float64], sequences: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        spent.append(float((shares * bits).sum()) + LARGE.space.fixed_bits)
        return mixing(LARGE)(shares, sequences)

    options = RelaxedOptions()
    strategy = relaxed(problem(LARGE.space), LARGE.middle_bits(), table=LARGE.table, mix=mix, options=options)
    while len(spent) < options.n_rounds * options.n_steps:
        searched(strategy, exactly(LARGE), n=1)
    assert len(spent) == options.n_rounds * options.n_steps
    assert LARGE.space.size_bits.min() == 128  # and sizes are multiples of 64 bits beyond the header
    assert all(LARGE.middle_bits() - 64 < bits < LARGE.middle_bits() + 1e-6 for bits in spent[1:])


def test_the_text_is_read_in_random_order_all_of_it_before_any_again() -> None:
    read: list[list[int]] = []

    def mix(shares: NDArray[np.float64], sequences: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        read.append(sequences.tolist())
        return mixing(LARGE)(shares, sequences)

    asked = Problem(LARGE.space, np.zeros((0, 12), dtype=np.int64), n_sequences=24, seed=0)
    searched(relaxed(asked, LARGE.middle_bits(), table=LARGE.table, mix=mix, options=RelaxedOptions()), exactly(LARGE), n=2)
    assert [len(each) for each in read] == [8] * 6
    assert sorted(np.ravel(read[:3])) == sorted(np.ravel(read[3:])) == [*range(24)]
    assert read[:3] != read[3:]
