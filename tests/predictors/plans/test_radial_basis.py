import numpy as np
import pytest
import scipy

from bitwright.errors import UserError
from bitwright.predictors.plans.predictor import Predictor
from bitwright.predictors.plans.radial_basis import RadialBasisPredictor, ranks
from bitwright.testing.predictor_contract import PredictorContract
from bitwright.testing.random_plans import N_UNITS, additive
from tests.sentences import sentence

OFFERED = np.ones((N_UNITS, 4), dtype=np.bool_)


class TestRadialBasisPredictor(PredictorContract):
    needed = N_UNITS + 1
    exactness = 0.25  # prices are not linear in the number of a format

    def predictor(self, table: np.ndarray) -> Predictor:
        return RadialBasisPredictor(np.ones(table.shape, dtype=np.bool_))


def test_measured_choices_are_interpolated() -> None:
    plans = additive(40, noise=0.3)
    np.testing.assert_allclose(RadialBasisPredictor(OFFERED).fit(*plans.known())(plans.choices)[0], plans.values, rtol=1e-6)


def test_a_plane_is_learnt_exactly_from_as_few_choices_as_it_has_coefficients() -> None:
    plans = additive(80, noise=0.0)
    values = 1 + plans.choices @ np.arange(1.0, N_UNITS + 1)
    predict = RadialBasisPredictor(OFFERED).fit(plans.choices[: N_UNITS + 1], values[: N_UNITS + 1], 0 * values[: N_UNITS + 1])
    np.testing.assert_allclose(predict(plans.choices)[0], values, rtol=1e-6)


def test_a_format_counts_by_its_rank_among_those_offered() -> None:
    offered = np.array([[True, False, True, True], [False, True, False, True]])
    assert ranks(offered, np.array([[0, 1], [2, 3], [3, 1]])).tolist() == [[0, 0], [1, 1], [2, 0]]


def test_units_that_never_vary_need_no_choices() -> None:
    choices = np.ones((5, N_UNITS), dtype=np.int64)
    choices[:, :4] = [[0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [2, 0, 1, 0]]
    values = np.arange(5.0)
    predict = RadialBasisPredictor(OFFERED).fit(choices, values, 0 * values)
    other = choices.copy()
    other[:, 4:] = 2  # nothing is known of them
    np.testing.assert_array_equal(predict(other)[0], predict(choices)[0])
    with pytest.raises(UserError) as refused:
        RadialBasisPredictor(OFFERED).fit(choices[:4], values[:4], 0 * values[:4])
    sentence(refused.value, "over 4 units", "at least 5", "there are 4")


def test_repeated_measurements_are_averaged() -> None:
    plans = additive(40, noise=0.05)
    twice = np.concatenate([plans.choices, plans.choices[:1]])
    values = np.concatenate([plans.values, plans.values[:1] + 0.2])
    predict = RadialBasisPredictor(OFFERED).fit(twice, values, np.zeros(41))
    np.testing.assert_allclose(predict(plans.choices[:1])[0], plans.values[0] + 0.1)


def test_units_that_always_go_together_are_refused() -> None:
    plans = additive(40, noise=0.05)
    choices = plans.choices.copy()
    choices[:, 1] = choices[:, 0]
    with pytest.raises(UserError) as refused:
        RadialBasisPredictor(OFFERED).fit(choices, plans.values, plans.errors)
    sentence(refused.value, "independently", N_UNITS, N_UNITS + 1)


def test_the_deviation_is_that_of_leaving_one_out() -> None:
    plans = additive(30, noise=0.1)
    points = plans.choices.astype(float)
    left_out = []
    for i in range(30):
        rest = np.arange(30) != i
        others = scipy.interpolate.RBFInterpolator(points[rest], plans.values[rest], kernel="cubic", degree=1)
        left_out.append(others(points[i : i + 1])[0] - plans.values[i])
    deviation = RadialBasisPredictor(OFFERED).fit(*plans.known())(plans.choices[:1])[1]
    np.testing.assert_allclose(deviation, np.sqrt(np.mean(np.square(left_out))), rtol=1e-6)


def test_where_none_can_be_left_out_the_deviation_is_that_of_the_values() -> None:
    plans = additive(N_UNITS + 1, noise=0.1)
    np.testing.assert_allclose(RadialBasisPredictor(OFFERED).fit(*plans.known())(plans.choices)[1], plans.values.std())
