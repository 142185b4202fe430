"""NSGA-II: fronts and loneliness by their definitions, and that it finds a front."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search import nondominated
from bitwright.search.strategies.genetic import Breeding, _best_first, _children, _fronts, _loneliness, bred
from bitwright.testing.strategy_contract import SMALL
from tests.search.instances import every_choice


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30, unique=True))
@settings(deadline=None)
def test_fronts_peel_off_one_by_one(points: list[tuple[int, int]]) -> None:
    values = np.array(points, dtype=np.float64)
    front, left = _fronts(values), np.arange(len(values))
    for k in range(front.max() + 1):
        best = nondominated(values[left])
        assert (front[left[best]] == k).all()
        left = left[~best]
    assert not len(left)


def test_an_equal_of_another_is_behind_it() -> None:
    assert sorted(_fronts(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 0.0]])).tolist()) == [0, 0, 1]


def test_loneliness() -> None:
    values = np.array([[0.0, 10.0], [2.0, 6.0], [3.0, 5.0], [10.0, 0.0]])
    assert _loneliness(values, np.zeros(4, dtype=np.int64)).tolist() == [np.inf, 0.3 + 0.5, 0.8 + 0.6, np.inf]


def test_within_a_front_the_lonely_come_first_and_of_two_the_better_becomes_a_parent() -> None:
    values = np.array([[5.0, 5.0], [1.0, 4.0], [1.1, 3.0], [3.0, 1.0], [4.0, 0.0]])
    assert _best_first(values).tolist()[:2] in ([1, 4], [4, 1])
    assert _best_first(values).tolist()[2:] == [3, 2, 0]
    members = np.arange(100)[:, None] * np.ones((1, 3), dtype=np.int64)
    copies = _children(members, np.full(3, 99), Breeding(10_000, crossover=0.0, mutation=0.0), np.random.default_rng(0))
    assert (copies == copies[:, :1]).all()
    assert (copies[:, 0] < 50).mean() == pytest.approx(0.75, abs=0.03)


def test_it_finds_the_front_of_a_small_space_and_no_member_twice() -> None:
    top = np.full(6, 2)
    top[-1] = 1

    def evaluate(ranks):
        return np.column_stack([np.where(ranks == 0, 5.0, 1 / (1 + ranks)) @ (1 + np.arange(6)), ranks.sum(axis=1).astype(float)])

    everything = np.array(list(np.ndindex(*(top + 1))))
    members = bred(everything[:5], top, evaluate, breeding=Breeding(60, 40), rng=np.random.default_rng(0))
    assert len(np.unique(members, axis=0)) == len(members) <= 60
    assert ((members >= 0) & (members <= top)).all()
    true = {tuple(row) for row in np.unique(evaluate(everything)[nondominated(evaluate(everything))], axis=0)}
    assert true <= {tuple(row) for row in evaluate(members)}


def test_genes_mutate_one_by_one() -> None:
    first = np.zeros((1, 200), dtype=np.int64)
    members = bred(first, np.full(200, 1), lambda ranks: np.zeros((len(ranks), 2)), breeding=Breeding(50, 1), rng=np.random.default_rng(0))
    changed = members[members.any(axis=1)].mean(axis=1)
    assert 0.02 < changed.mean() < 0.08  # a tenth is drawn anew, and half of that comes out different
    assert changed.max() < 0.2


def test_the_landscape_of_the_contract_has_a_front() -> None:
    choices = every_choice(SMALL.space)
    assert 5 < nondominated(np.column_stack([SMALL.space.total_bits(choices), SMALL(choices)])).sum() < 100
