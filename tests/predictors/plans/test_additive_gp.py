from dataclasses import dataclass

import numpy as np
import pytest
import scipy
from scipy.optimize import approx_fprime

from bitwright.predictors.plans import additive_gp
from bitwright.predictors.plans.additive_gp import NoiseTerm, Prior, fit_posterior, fit_posterior_to_values, predict_nats
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.gp_kernels import Constant, ConstantNoise, UnitErrors
from bitwright.testing.random_plans import additive


@dataclass(frozen=True)
class Fixed(NoiseTerm):
    """Noise of known amplitude."""

    prior_median: float
    prior_log_std: float = 0.0

    def variance(self, shares: CostShares) -> np.ndarray:
        return np.ones(len(shares))


PRIOR = Prior((Constant(2.0), UnitErrors(0.5, 0.0)), (Fixed(0.1),))


def some(n: int) -> CostShares:
    plans = additive(n, noise=0.0)
    return cost_shares(plans.table, plans.choices)


def drawn(shares: CostShares, *, unit: float, scatter: float, noise: np.ndarray, seed: int = 0) -> np.ndarray:
    """Deviations of a truth with unit errors of deviation `unit`, measured with `noise` `(n,)`."""
    rng = np.random.default_rng(seed)
    errors = unit * rng.standard_normal(shares.parts.shape[1])
    return 0.4 + shares.parts @ errors + np.hypot(scatter, noise) * rng.standard_normal(len(shares))


def test_a_prediction_is_the_conditional_normal() -> None:
    shares, errors = some(30), np.full(30, 0.2)
    known, asked = shares.only(slice(20)), shares.only(slice(20, None))
    deviations = drawn(known, unit=0.5, scatter=0.1, noise=errors[:20])
    found = fit_posterior(PRIOR, known, deviations, errors[:20])
    share = np.sqrt(_share(found, known, errors[:20]))
    joint = 4 + 0.25 * shares.parts @ shares.parts.T
    inside = joint[:20, :20] + np.diag(0.01 + (share * errors[:20]) ** 2)
    gain = joint[20:, :20] @ np.linalg.inv(inside)
    mean, variance = found.log_ratio(asked)
    np.testing.assert_allclose(mean, gain @ deviations, rtol=1e-5)
    np.testing.assert_allclose(variance, np.diag(joint[20:, 20:] - gain @ joint[:20, 20:]) + 0.01, rtol=1e-5)


def _share(found: additive_gp.Posterior, known: CostShares, errors: np.ndarray) -> float:
    """The squared share of the errors, from the precision that was found."""
    total = np.linalg.inv(found._precision) - 4 - 0.25 * known.parts @ known.parts.T
    return float((total[0, 0] - 0.01) / errors[0] ** 2)


def test_the_evidence_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((2, 6, 6))
    parts, squared, z = np.array([half[0] @ half[0].T, half[1] @ half[1].T, np.eye(6)]), np.array([0.5, 2.0, 0.3]), rng.standard_normal(6)
    total = np.tensordot(squared, parts, axes=1)
    minus, slopes = additive_gp._minus_log_evidence(parts, z, squared)
    assert minus == pytest.approx(-scipy.stats.multivariate_normal(np.zeros(6), total).logpdf(z) - 3 * np.log(2 * np.pi))
    numeric = approx_fprime(np.log(squared) / 2, lambda logs: additive_gp._minus_log_evidence(parts, z, np.exp(2 * logs))[0], 1e-6)
    np.testing.assert_allclose(slopes, numeric, rtol=1e-3)


@pytest.mark.parametrize("unit", [0.1, 1.0])
def test_amplitudes_are_fitted(unit: float) -> None:
    shares = some(200)
    found = fit_posterior(
        Prior((Constant(), UnitErrors()), (ConstantNoise(),)), shares, drawn(shares, unit=unit, scatter=0.02, noise=np.zeros(200)), np.zeros(200)
    )
    assert np.sqrt(found.variances[1]) == pytest.approx(unit, rel=0.6)
    assert np.sqrt(found.variances[2]) == pytest.approx(0.02, rel=0.3)


def test_errors_that_all_choices_share_are_not_taken_for_noise() -> None:
    """Common errors of 30 % that the values do not show leave the prediction as certain as none."""
    shares = some(80)
    prior, deviations = Prior((Constant(), UnitErrors()), (ConstantNoise(),)), drawn(shares, unit=0.3, scatter=0.01, noise=np.zeros(80))
    believed, none = (fit_posterior(prior, shares, deviations, np.full(80, error)).log_ratio(shares) for error in (0.3, 0.0))
    np.testing.assert_allclose(believed[0], none[0], atol=0.01)
    assert np.sqrt(believed[1]).mean() < 0.03


def test_errors_that_are_a_choice_s_own_are_noise() -> None:
    shares, errors = some(200), np.where(np.arange(200) % 2, 0.01, 0.5)
    prior = Prior((Constant(), UnitErrors()), (ConstantNoise(),))
    found = fit_posterior(prior, shares, drawn(shares, unit=0.3, scatter=0.01, noise=errors), errors)
    assert np.sqrt(found.log_ratio(shares)[1]).mean() < 0.1


def test_a_value_below_its_error_counts_as_that_error() -> None:
    plans = additive(30, noise=0.0)
    shares, errors = cost_shares(plans.table, plans.choices), 0.1 * plans.values
    low, at_error = plans.values.copy(), plans.values.copy()
    low[0], at_error[0] = -1.0, errors[0]
    prior = Prior((Constant(), UnitErrors()), (ConstantNoise(),))
    found, expected = (fit_posterior_to_values(prior, shares, values, errors).log_ratio(shares)[0] for values in (low, at_error))
    np.testing.assert_allclose(found, expected)
    assert np.isfinite(found).all()


def test_values_of_zero_are_left_out() -> None:
    plans = additive(30, noise=0.0)
    table = np.column_stack([plans.table, np.zeros(len(plans.table))])
    choices = np.concatenate(
        [plans.choices, np.full((1, len(table)), 4), plans.choices[:1]]
    )  # one that costs nothing, one that is measured as nothing
    values, errors = np.concatenate([plans.values, [0.5, 0.0]]), np.concatenate([plans.errors, [0.01, 0.0]])
    prior, shares = Prior((Constant(), UnitErrors()), (ConstantNoise(),)), cost_shares(table, choices)
    found, without = (
        fit_posterior_to_values(prior, shares, values, errors),
        fit_posterior_to_values(prior, shares.only(slice(30)), plans.values, plans.errors),
    )
    np.testing.assert_array_equal(found.log_ratio(shares.only(slice(30))), without.log_ratio(shares.only(slice(30))))
    mean, deviation = predict_nats(found, shares)
    assert mean[30] == deviation[30] == 0
    assert (mean[:30] > 0).all()


def test_many_choices_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = additive(50, noise=0.05)
    shares = cost_shares(plans.table, plans.choices)
    posterior = fit_posterior_to_values(PRIOR, shares, plans.values, plans.errors)
    whole = predict_nats(posterior, shares)
    monkeypatch.setattr(additive_gp, "_AT_ONCE", 7)
    np.testing.assert_allclose(predict_nats(posterior, shares), whole)


def test_slopes_of_features() -> None:
    """A feature's posterior mean is its prior variance times the slope; the second is how much the measurements know of it."""
    shares = some(40)
    deviations = drawn(shares, unit=0.5, scatter=0.05, noise=np.zeros(40))
    found = fit_posterior(PRIOR, shares, deviations, np.zeros(40))
    slopes, information = found.slopes(shares.parts)
    np.testing.assert_allclose(4 * found._weights.sum() + 0.25 * shares.parts @ slopes, found.log_ratio(shares)[0], rtol=1e-6)
    np.testing.assert_allclose(information, np.diag(shares.parts.T @ found._precision @ shares.parts))
