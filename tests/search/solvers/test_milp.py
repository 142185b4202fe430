"""The programme itself: products of pairs, and that it says when nothing is possible."""

import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.search.solvers.milp import ContradictionError, Programme

OFFERED = np.ones((2, 2), dtype=bool)


def test_a_curve_lies_above_its_lines() -> None:
    programme = Programme(OFFERED)
    programme.minimise(np.array([[0.0, -1.0], [0.0, -1.0]]))
    curve = programme.curve(2.0)
    programme.above(curve, np.array([[0.0, 0.75], [0.0, 0.75]]), -0.5)  # nothing for the first pair, 1.0 * 2 for both
    programme.above(curve, np.zeros((2, 2)), 0.0)
    answer = programme.solve(10.0)
    assert (answer.loss, int(answer.choice.sum())) == (pytest.approx(-0.5), 1)
    fractions, bound = programme.relaxed()
    assert bound == pytest.approx(-2 / 3)
    assert fractions[:, 1].sum() == pytest.approx(2 / 3)
    assert programme.solve(10.0).loss == answer.loss  # whole again


def test_a_forbidden_choice_is_not_answered_again() -> None:
    programme = Programme(OFFERED)
    programme.minimise(np.array([[0.0, 1.0], [0.0, 2.0]]))
    found = []
    for _ in range(4):
        found.append(programme.solve(10.0).choice.tolist())
        programme.forbid(np.array(found[-1]))
    assert found == [[0, 0], [1, 0], [0, 1], [1, 1]]
    with pytest.raises(ContradictionError):
        programme.solve(10.0)


def test_too_little_time_is_no_contradiction() -> None:
    rng = np.random.default_rng(0)
    programme = Programme(np.ones((60, 4), dtype=bool))
    programme.limit(rng.integers(1, 1000, (60, 4)), 20_000)
    programme.minimise(rng.random((60, 4)))
    with pytest.raises(UserError, match="within 0 s"):
        programme.solve(0.0)
