"""Second limit kept by a price, against every combination, and at the size of a model of 7 billion weights."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from bitwright.search.solvers.composite import Options, combined, either, one_decision, solve_composite
from bitwright.search.solvers.second_limit import Priced, solve_priced

#: bits, seconds and nats of each option of each group
Table = list[list[tuple[int, float, float]]]
_BITS = np.array([2.06, 2.56, 3.06, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5])  # of a weight, in nine formats
_SECONDS = _BITS / np.array([7.0, 6.0, 7.4, 7.0, 14.5, 12.9, 9.7, 16.3, 18.5])


def drawn(rng: np.random.Generator, n_groups: int, n_options: int) -> Table:
    return [[(8 * int(rng.integers(1, 40)), float(rng.uniform(1, 5)), float(rng.uniform(0, 1))) for _ in range(n_options)] for _ in range(n_groups)]


def solved_at(table: Table, budget: int, price: float) -> Priced[tuple[int, ...]]:
    groups = []
    for options in table:
        bits, seconds, nats = (np.array(column) for column in zip(*options, strict=True))
        groups.append(one_decision(bits, nats + price * seconds, np.arange(len(options))))
    found = solve_composite(groups, budget)
    picks = tuple(int(picked[0]) for picked in found.picks)
    seconds, nats = (sum(options[i][column] for options, i in zip(table, picks, strict=True)) for column in (1, 2))
    return Priced(picks, nats, seconds, found.gap)


@pytest.mark.parametrize("seed", range(8))
def test_both_limits_are_kept_and_the_gap_holds_for_every_combination(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = drawn(rng, 5, 4)
    sums = [tuple(sum(column) for column in zip(*picked, strict=True)) for picked in product(*table)]
    budget = int(np.quantile([bits for bits, _, _ in sums], 0.4))
    for share in (0.05, 0.3, 0.7, 1.0):
        at_most = float(np.quantile([seconds for bits, seconds, _ in sums if bits <= budget], share))
        best = min((nats for bits, seconds, nats in sums if bits <= budget and seconds <= at_most), default=None)
        found = solve_priced(lambda price: solved_at(table, budget, price), at_most)
        assert best is not None
        assert found is not None
        assert found.taken <= at_most
        assert sum(table[group][i][0] for group, i in enumerate(found.found)) <= budget
        assert found.loss - found.gap <= best + 1e-9
        assert best <= found.loss + 1e-9


def test_nothing_is_found_below_the_least_that_can_be_taken() -> None:
    table = drawn(np.random.default_rng(0), 3, 3)
    least = sum(min(seconds for _, seconds, _ in options) for options in table)
    assert solve_priced(lambda price: solved_at(table, 10**6, price), 0.99 * least) is None
    found = solve_priced(lambda price: solved_at(table, 10**6, price), 1.0001 * least)
    assert found is not None
    assert found.taken == pytest.approx(least)


def blocks(price: float, scales: Sequence[Sequence[float]]) -> list[Options]:
    """Return the options of 32 blocks of 20 to 43 channel blocks and nine formats of three matrices, a second of each priced."""
    found = []
    for scale in scales:
        widths = []
        for kept in range(20, 44):
            formats = [
                one_decision((_BITS * kept * 2**20).astype(np.int64), s * kept / 43 * 4.0**-_BITS + price * kept * _SECONDS, np.arange(9))
                for s in scale
            ]
            loss = 1e-3 * (43 - kept) ** 1.5 * scale[0]
            widths.append(combined(*formats, one_decision(np.zeros(1, dtype=np.int64), np.zeros(1), np.array([kept]))).plus(bits=0, loss=loss))
        found.append(either(*widths))
    return found


@pytest.mark.slow
def test_a_model_of_32_blocks_is_solved_within_two_limits_with_a_small_gap() -> None:
    scales = np.random.default_rng(1).uniform(0.5, 2, (32, 3)).tolist()
    n_solved = 0

    def at_price(price: float) -> Priced[int]:
        nonlocal n_solved
        n_solved += 1
        found = solve_composite(blocks(price, scales), int(32 * 3 * 43 * 2**20 * 4.0))
        taken = sum(float(picked[-1] * _SECONDS[picked[:-1]].sum()) for picked in found.picks)
        return Priced(n_solved, found.loss - price * taken, taken, found.gap)

    free = at_price(0.0)
    found = solve_priced(at_price, 0.9 * free.taken)
    assert found is not None
    assert found.taken <= 0.9 * free.taken
    assert found.gap < 5e-3 * found.loss
    assert n_solved < 20
