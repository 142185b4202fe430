import sys

import numpy as np
import pytest

from bitwright.errors import LibraryError
from bitwright.predictors.plans.gaussian_process import GaussianProcessPredictor
from bitwright.predictors.plans.predictor import Predictor
from bitwright.testing.predictor_contract import LearningContract, held_out
from bitwright.testing.random_plans import additive
from tests.sentences import sentence

pytestmark = pytest.mark.slow


class TestGaussianProcessPredictor(LearningContract):
    needed = 4

    def predictor(self, table: np.ndarray) -> Predictor:
        return GaussianProcessPredictor(table)


def test_an_interaction_outside_the_table_is_learnt() -> None:
    """A smooth function of two units' formats together, in which no single price is wrong."""
    plans = additive(180, noise=0.0)
    u, v = np.argsort(-plans.table.sum(axis=1))[:2]
    truth = plans.truth * np.where((plans.choices[:, u] < 1) == (plans.choices[:, v] < 1), 1.3, 0.8)
    prices = plans.table[np.arange(len(plans.table)), plans.choices].sum(axis=1)
    predict = GaussianProcessPredictor(plans.table).fit(plans.choices[:120], truth[:120], 0.01 * truth[:120])
    off = np.std(np.log(predict(plans.choices[120:])[0] / truth[120:]))
    assert off < 0.6 * np.std(np.log(prices[120:] / truth[120:]))


def test_independent_noise_is_in_the_standard_deviation() -> None:
    plans = additive(80, noise=0.2)
    predict = GaussianProcessPredictor(plans.table).fit(plans.choices, plans.values, 0.01 * plans.values)
    means, deviations = predict(plans.choices)
    assert 0.15 < np.median(deviations / means) < 0.3


def test_the_table_may_be_in_any_units() -> None:
    plans = additive(80, noise=0.05)
    first, other = (held_out(GaussianProcessPredictor(table), plans) for table in (plans.table, 1e6 * plans.table))
    np.testing.assert_allclose(other.means, first.means, rtol=1e-3)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botorch", None)
    with pytest.raises(LibraryError) as refused:
        GaussianProcessPredictor(np.ones((2, 2)))
    sentence(refused.value, "botorch", "bitwright[search]", "ridge")
