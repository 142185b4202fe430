import numpy as np

from bitwright.predictors import fit_scale
from bitwright.predictors.plans.additive import AdditivePredictor
from bitwright.predictors.plans.predictor import Predictor
from bitwright.testing.predictor_contract import PredictorContract
from bitwright.testing.random_plans import additive


class TestAdditivePredictor(PredictorContract):
    needed = 0

    def predictor(self, table: np.ndarray) -> Predictor:
        return AdditivePredictor(table)


def test_it_is_the_scale_of_the_table() -> None:
    plans = additive(30, noise=0.2)
    sums = plans.table[np.arange(len(plans.table)), plans.choices].sum(axis=1)
    scale = fit_scale(sums.tolist(), plans.values.tolist())
    means, deviations = AdditivePredictor(plans.table).fit(*plans.known())(plans.choices)
    np.testing.assert_allclose(means, scale.factor * sums)
    np.testing.assert_allclose(deviations, [scale.standard_error(each) for each in sums])


def test_without_measurements_it_is_the_table() -> None:
    plans = additive(10, noise=0.2)
    means, deviations = AdditivePredictor(plans.table).fit(plans.choices[:0], plans.values[:0], plans.errors[:0])(plans.choices)
    np.testing.assert_allclose(means, plans.table[np.arange(len(plans.table)), plans.choices].sum(axis=1))
    np.testing.assert_array_equal(deviations, means)
