"""Scores and what is refused."""

import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.search.solvers.scores import checked_scores, weights_of
from tests.search.instances import space_of

SPACE = space_of([[8, 16]] * 2, [[True, True]] * 2)


def test_scores_stay_as_they_are() -> None:
    assert checked_scores(SPACE, np.array([-1.0, 2.0])).tolist() == [-1.0, 2.0]


def test_scores_of_other_units_or_no_number_are_refused() -> None:
    with pytest.raises(UserError, match=r"each of 2 units; these are of shape \(3,\)"):
        checked_scores(SPACE, np.zeros(3))
    with pytest.raises(UserError, match=r"that of u1 is nan \(1 such\)"):
        checked_scores(SPACE, np.array([0.0, np.nan]))


def test_a_tie_weighs_as_much_as_its_tensors() -> None:
    assert weights_of(SPACE).tolist() == [64, 32]
