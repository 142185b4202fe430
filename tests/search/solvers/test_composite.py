"""Groups of decisions against every combination, and the size of a model of 7 billion weights."""

from itertools import product

import numpy as np
import pytest

from bitwright.errors import BudgetError
from bitwright.search.solvers.composite import Options, combined, either, one_decision, solve_composite


def decision(rng: np.random.Generator, n: int) -> Options:
    return Options(rng.integers(1, 60, n) * 8, rng.uniform(0, 1, n), np.arange(n)[:, None])


def narrowed(whole: Options, width: int) -> Options:
    """Return a decision with less of everything: a width decides what a format takes and loses."""
    return Options(whole.bits * width // 4, whole.loss * width / 4 + (4 - width), whole.picks)


@pytest.mark.parametrize("seed", range(6))
def test_widths_and_formats_are_solved_as_by_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = [[decision(rng, 3), decision(rng, 3)] for _ in range(3)]
    wide = [[(narrowed(a, width), narrowed(b, width)) for width in (2, 4)] for a, b in raw]
    groups = [either(*(combined(*(one_decision(o.bits, o.loss, o.picks[:, 0]) for o in pair)) for pair in pairs)) for pairs in wide]
    every = [[(a.bits[i] + b.bits[j], a.loss[i] + b.loss[j]) for a, b in pairs for i, j in product(range(3), repeat=2)] for pairs in wide]
    sums = [(sum(bits for bits, _ in picked), sum(loss for _, loss in picked)) for picked in product(*every)]
    for budget in np.quantile([bits for bits, _ in sums], [0.01, 0.2, 0.6]).astype(int):
        found = solve_composite(groups, int(budget))
        assert found.loss == pytest.approx(min(loss for bits, loss in sums if bits <= budget))
        assert found.bits <= budget
        assert found.gap == pytest.approx(0, abs=1e-12)


def test_the_gap_of_thinned_groups_holds_for_all_of_them() -> None:
    rng = np.random.default_rng(0)
    front = np.sort(rng.integers(1, 10**7, 3000)) * 8
    loss = np.sort(rng.exponential(1, 3000))[::-1]
    budget = int(4 * np.median(front))
    found = solve_composite([Options(front, loss, np.arange(3000)[:, None])] * 4, budget)
    partner = np.searchsorted(front, budget // 2 - front, side="right") - 1  # the best other half of each option within half of the budget
    pair = (loss + loss[partner])[partner >= 0].min()
    assert found.loss - found.gap <= 2 * pair  # which four groups may have
    assert 0 <= found.gap < 0.02 * found.loss


def test_a_model_of_32_blocks_is_solved_with_a_small_gap() -> None:
    rng, groups = np.random.default_rng(1), []
    bits_of = np.array([2.06, 2.56, 3.06, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5])
    for _ in range(32):
        scale = rng.uniform(0.5, 2, 3)
        widths = []
        for kept in range(20, 44):
            formats = [one_decision((bits_of * kept * 2**20).astype(np.int64), s * kept / 43 * 4.0**-bits_of, np.arange(9)) for s in scale]
            widths.append(combined(*formats).plus(bits=0, loss=float(1e-3 * (43 - kept) ** 1.5 * rng.uniform(0.9, 1.1))))
        groups.append(either(*widths))
    found = solve_composite(groups, int(32 * 3 * 43 * 2**20 * 2.6))
    assert found.gap < 1e-3
    assert len(found.picks) == 32


def test_a_budget_below_the_smallest_options_is_refused() -> None:
    group = one_decision(np.array([80, 160]), np.array([1.0, 0.5]), np.array([0, 1]))
    with pytest.raises(BudgetError):
        solve_composite([group], 72)
