"""Random numbers by format: those of the formats on offer, wherever they stand among the others."""

import numpy as np

from bitwright.search.solvers.format_draws import drawn_by_format
from tests.search.instances import space_of


def test_only_what_some_unit_is_offered_is_drawn() -> None:
    space = space_of([[1, 1, 1, 1]] * 2, [[False, True, False, False], [False, True, False, True]])
    drawn = drawn_by_format(space, lambda n: np.random.default_rng(5).normal(size=(3, n)))
    assert (drawn[:, [0, 2]] == 0).all()
    assert (drawn[:, [1, 3]] == np.random.default_rng(5).normal(size=(3, 2))).all()
