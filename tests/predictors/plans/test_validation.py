import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.predictors import Folds, Measured, Validation, cross_validate
from bitwright.predictors.plans.additive import AdditivePredictor
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.radial_basis import RadialBasisPredictor
from bitwright.spaces import Choices
from bitwright.testing.random_plans import additive
from tests.sentences import sentence


def some(n: int = 50, *, seed: int = 0, noise: float = 0.0) -> Validation:
    rng = np.random.default_rng(seed)
    truth, deviations = rng.random(n) + 1, 0.1 * (rng.random(n) + 0.5)
    noises = np.full(n, noise)
    return Validation(truth + noises * rng.standard_normal(n), noises, truth + deviations * rng.standard_normal(n), deviations)


def test_statistics_are_their_definitions() -> None:
    found = some()
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(found.values, found.means)[0])
    assert found.kendall == pytest.approx(scipy.stats.kendalltau(found.values, found.means)[0])
    assert found.root_mean_square == pytest.approx(np.sqrt(np.mean((found.values - found.means) ** 2)))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_true_deviations_cover_nine_in_ten(noise: float) -> None:
    assert some(20_000, noise=noise).coverage == pytest.approx(0.9, abs=0.01)


def test_unstated_noise_lowers_the_coverage() -> None:
    found = some(2000, noise=0.3)
    assert Validation(found.values, 0 * found.noise, found.means, found.deviations).coverage < 0.6


def test_ranks_among_some() -> None:
    found = some()
    near = found.values < np.median(found.values)
    assert found.among(near).spearman == pytest.approx(scipy.stats.spearmanr(found.values[near], found.means[near])[0])
    assert found.among(near).coverage == pytest.approx(np.mean(np.abs(found.values - found.means)[near] <= 1.6448536 * found.deviations[near]))


def test_ranks_of_constant_values_are_undefined() -> None:
    found = some()
    for short in (found.among(np.arange(50) < 2), Validation(found.values, found.noise, 0 * found.means, found.deviations)):
        assert np.isnan([short.spearman, short.kendall]).all()
        assert np.isfinite([short.root_mean_square, short.coverage]).all()


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 5))
def test_folds_are_even(n_choices: int, n: int, seed: int) -> None:
    if n > n_choices:
        with pytest.raises(UserError) as refused:
            Folds(n, seed).assign(n_choices)
        sentence(refused.value, n, n_choices)
    else:
        sizes = np.bincount(Folds(n, seed).assign(n_choices), minlength=n)
        assert len(sizes) == n
        assert sizes.max() - sizes.min() <= 1


class Remembering(Predictor):
    """Predictor of what it was shown, which refuses to be shown what it is asked for."""

    def fit(self, choices: Choices, values: np.ndarray, errors: np.ndarray) -> Predict:
        shown = {choice.tobytes() for choice in choices}

        def predict(others: Choices) -> tuple[np.ndarray, np.ndarray]:
            assert not shown & {choice.tobytes() for choice in others}
            return others[:, 0].astype(float), np.full(len(others), values.sum() + errors.sum())

        return predict


def test_every_choice_is_predicted_by_the_other_folds() -> None:
    choices = np.arange(7)[:, None]
    values, errors, noise = 10.0 ** np.arange(7), np.full(7, 0.5), np.full(7, 0.25)
    found = cross_validate(Remembering(), Measured(choices, values, errors, noise), Folds(3, 1))
    np.testing.assert_array_equal(found.means, np.arange(7))
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.noise, noise)
    fold = Folds(3, 1).assign(7)
    np.testing.assert_allclose(found.deviations, [values[fold != fold[i]].sum() + 0.5 * (fold != fold[i]).sum() for i in range(7)])


def test_the_seed_assigns_the_folds() -> None:
    assert Folds(5, 0).assign(30).tolist() == Folds(5, 0).assign(30).tolist() != Folds(5, 1).assign(30).tolist()


def test_a_good_predictor_is_found_good() -> None:
    plans = additive(40, noise=0.05)
    found = cross_validate(AdditivePredictor(plans.table), Measured(*plans.known(), noise=plans.errors), Folds(5, 0))
    assert found.spearman > 0.9
    assert found.coverage > 0.8


def test_too_few_outside_a_fold_are_refused() -> None:
    plans = additive(14, noise=0.05)  # enough for twelve units as a whole, not with a seventh held out
    with pytest.raises(UserError, match="at least 13"):
        cross_validate(RadialBasisPredictor(np.ones(plans.table.shape, dtype=np.bool_)), Measured(*plans.known(), plans.errors), Folds(7, 0))
