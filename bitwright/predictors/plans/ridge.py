"""Bayesian ridge regression on one-hot choices, with the table as the prior mean. The default predictor of the search.

    log value = trend(log sum) + Σ_u r_u (θ_u + θ_{u,format}) + f(plan) + noise

The error θ of a price is relative, and moves the logarithm of the value by θ times the unit's share r_u of the sum; f is a Matérn process that
similar plans share. Ridge regression with one variance for each kind of error is the posterior mean under a Gaussian prior (Hoerl & Kennard,
Technometrics 12, 1970; MacKay, "Bayesian interpolation", Neural Computation 4, 1992), and the variances maximise the marginal likelihood: see
`additive_gp`. New here are the table as the prior mean, and f. Logarithms, because errors of a sum are relative and divergences range over three
decades; docs/predictors.md compares the alternatives.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Posterior, Prior, fit_posterior_to_values, predict_around
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.gp_kernels import (
    RBF,
    ConcentrationNoise,
    Constant,
    ConstantNoise,
    DistanceNoise,
    LogLinear,
    Matern52,
    PriceErrors,
    UnitErrors,
    one_hot,
)
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class RidgePredictor(Predictor):
    """Ridge around a `table` `(n_units, n_formats)` in any units. Without measurements it predicts the table's sum, with an unknown factor."""

    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """Fit errors of prices to any number of choices by Bayesian ridge regression."""
        return predict_around(self.table, self._posterior(choices, values, errors))

    def corrected(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the table `(n_units, n_formats)` with every price corrected by its expected error, in the table's units, for a solver that needs
        sums.
        """
        posterior = self._posterior(choices, values, errors)
        variances = zip(posterior.prior.kernels, posterior.variances, strict=False)
        of_unit, of_price = (variance for kernel, variance in variances if isinstance(kernel, UnitErrors | PriceErrors))
        slopes = posterior.slopes(one_hot(posterior.measured, self.table.shape[1]))[0].reshape(self.table.shape)
        moved: NDArray[np.float64] = self.table * np.exp(of_unit * slopes.sum(axis=1, keepdims=True) + of_price * slopes)
        return moved

    def _posterior(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Posterior:
        shares = cost_shares(self.table, choices)
        return fit_posterior_to_values(price_error_prior(shares, self.table.shape[1]), shares, values, errors)


def price_error_prior(measured: CostShares, n_formats: int) -> Prior:
    """Return the prior of the module's formula, its trend centred on the measured choices."""
    finite = measured.log_sum[np.isfinite(measured.log_sum)]
    centre = float(finite.mean()) if len(finite) else 0.0
    kernels = Constant(), LogLinear(centre), RBF(), UnitErrors(), PriceErrors(n_formats), Matern52(centre)
    return Prior(kernels, (ConstantNoise(), ConcentrationNoise(), DistanceNoise(centre)))
