"""A table whose prices may be wrong: Bayesian ridge regression on one-hot choices, around the table as the prior. The default of the search.

    log value = trend(log sum) + Σ_u r_u (θ_u + θ_{u,format}) + what alike plans have in common + scatter

A price's error θ is relative, so a large price may move more, and a choice's value moves by its share r_u of the sum. Ridge regression with one
variance for each kind of error is the posterior mean of a Gaussian prior (Hoerl & Kennard, Technometrics 12, 1970; MacKay, "Bayesian interpolation",
Neural Computation 4, 1992), and the variances are those that make the measurements most probable: see `evidence`. What is new here is the prior, and
that the model's own error is partly shared by alike plans. In logarithms, because errors of a sum are relative and divergences range over three
decades; docs/predictors.md has what the alternatives measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Learnt, Prior, learn_from_values, prediction
from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.gp_kernels import Bend, Concentrated, Even, Factor, Likeness, Outlying, Power, PriceErrors, UnitErrors, one_hot
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class RidgePredictor(Predictor):
    """Around a `table` `(n_units, n_formats)` in any units. It can predict before anything is measured: the table itself, with an unknown factor."""

    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """See `Predictor.fit`; no number of choices is too small."""
        return prediction(self.table, self._learnt(choices, values, errors))

    def corrected(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table `(n_units, n_formats)` with every price moved by its expected error, in the table's own units: for a solver that needs a sum."""
        learnt = self._learnt(choices, values, errors)
        variances = zip(learnt.prior.effects, learnt.squared_sizes, strict=False)
        of_unit, of_price = (variance for effect, variance in variances if isinstance(effect, UnitErrors | PriceErrors))
        slopes = learnt.slopes(one_hot(learnt.measured, self.table.shape[1]))[0].reshape(self.table.shape)
        moved: NDArray[np.float64] = self.table * np.exp(of_unit * slopes.sum(axis=1, keepdims=True) + of_price * slopes)
        return moved

    def _learnt(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Learnt:
        shares = shares_of(self.table, choices)
        return learn_from_values(wrong_prices(shares, self.table.shape[1]), shares, values, errors)


def wrong_prices(measured: Shares, n_formats: int) -> Prior:
    """The prior of the module's formula, with its trend centred on what was measured."""
    finite = measured.log_sum[np.isfinite(measured.log_sum)]
    centre = float(finite.mean()) if len(finite) else 0.0
    effects = Factor(), Power(centre), Bend(), UnitErrors(), PriceErrors(n_formats), Likeness(centre)
    return Prior(effects, (Even(), Concentrated(), Outlying(centre)))
