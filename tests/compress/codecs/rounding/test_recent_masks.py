"""Masks shared by formats of one pattern: searched for once for a matrix of weights, and anew for any other."""

import pickle

import numpy as np
import pytest

from bitwright.compress import Floats
from bitwright.compress.codecs.rounding.pruning import Pruned, by_wanda
from bitwright.compress.codecs.rounding.recent_masks import RecentMasks
from bitwright.spaces import NOfM, Pattern
from bitwright.testing.codec_contract import normal

ONES = np.ones(16, dtype=np.float32)


class Asked:
    """Masks that were searched for, and those that `recent` has."""

    def __init__(self) -> None:
        self.recent, self.searched = RecentMasks(), 0

    def __call__(self, tensor: str, weights: Floats, pattern: Pattern, importance: Floats = ONES) -> Pruned:
        return self.recent.found((tensor, 0), weights, importance, pattern, lambda: self._search(weights, pattern, importance))

    def _search(self, weights: Floats, pattern: Pattern, importance: Floats) -> Pruned:
        self.searched += 1
        return by_wanda(weights, pattern, importance)


def test_a_mask_is_searched_for_once_for_each_pattern_of_a_matrix() -> None:
    asked, weights, half, quarter = Asked(), normal(3, 16), NOfM(2, 4), NOfM(1, 4)
    first = [asked("t", weights, pattern) for pattern in (half, quarter)]
    assert [asked("t", weights.copy(), pattern) for pattern in (half, quarter)] == first
    assert asked.searched == 2
    others = [asked("u", weights, half), asked("t", -weights, half), asked("t", -weights, half, 2 * ONES), asked("t", weights, half)]
    assert asked.searched == 6
    assert np.array_equal(others[-1].mask, first[0].mask)


def test_what_is_large_is_not_kept_and_nothing_is_sent_along(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, weights = Asked(), normal(3, 16)
    asked("t", weights, NOfM(2, 4))
    assert len(pickle.dumps(asked.recent)) < 200
    monkeypatch.setattr("bitwright.compress.codecs.rounding.recent_masks._LARGEST_BYTES", 100)
    for _ in range(2):
        asked("t", weights, NOfM(1, 4))
    assert asked.searched == 3
