"""The set of asked choices returns none twice."""

import numpy as np

from bitwright.search.solvers.asked_choices import Seen

CHOICES = np.array([[0, 1], [1, 0], [0, 1], [1, 1]])


def test_new_choices_come_once_and_in_their_order() -> None:
    seen = Seen()
    assert seen.lacks(CHOICES).all()
    assert seen.new(CHOICES).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert not seen.lacks(CHOICES).any()
    assert seen.new(CHOICES).shape == (0, 2)
    assert seen.new(CHOICES[:0]).shape == seen.new(np.zeros((0, 2), dtype=np.int64)).shape == (0, 2)
    assert seen.lacks(np.zeros((0, 2), dtype=np.int64)).shape == (0,)


def test_draws_end_when_no_new_one_comes() -> None:
    seen = Seen()
    seen.new(CHOICES[:1])
    drawn = [*seen.drawn(lambda rng: rng.integers(2, size=2), np.random.default_rng(0))]
    assert sorted(choice.tolist() for choice in drawn) == [[0, 0], [1, 0], [1, 1]]
