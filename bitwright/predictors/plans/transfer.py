"""Multi-fidelity predictor: from many cheap evaluations to few expensive ones, e.g. from plain rounding to the final codec, or from few tokens to
many.

A prediction fitted to cheap evaluations takes the place of the table's sum, and the expensive ones correct it in the same terms as `ridge`: a factor,
a trend, and units whose prices differ between the two. After APQ (Wang et al., CVPR 2020, section 3.3), which fine-tunes a network trained on cheap
samples on few expensive ones; here the cheap prediction is the prior mean, with its own uncertainty.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Floats, NoiseTerm, fit_posterior_to_values, predict_nats
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.ridge import price_error_prior
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class TransferPredictor(Predictor):
    """Ridge around `cheap`, a prediction fitted to cheap evaluations; cost shares come from `table` `(n_units, n_formats)`, in any units.

    Without expensive evaluations it predicts as `cheap` does, with an unknown factor.
    """

    cheap: Predict
    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """See `Predictor.fit`; any number of choices will do."""
        measured = self._shares(choices)
        prior = price_error_prior(measured, self.table.shape[1])
        posterior = fit_posterior_to_values(replace(prior, noise_terms=(*prior.noise_terms, _CheapError(self.cheap))), measured, values, errors)
        return lambda others: predict_nats(posterior, self._shares(others))

    def _shares(self, choices: Choices) -> CostShares:
        mean, _ = self.cheap(choices)
        positive = mean > 0
        log_mean = np.log(mean, out=np.full(len(mean), -np.inf), where=positive)
        return replace(cost_shares(self.table, choices), log_sum=log_mean)


@dataclass(frozen=True, eq=False)
class _CheapError(NoiseTerm):
    """Noise from the uncertainty of the cheap prediction."""

    cheap: Predict
    prior_median: float = 0.5
    prior_log_std: float = 1.0

    def variance(self, shares: CostShares) -> Floats:
        """See `NoiseTerm.variance`."""
        mean, deviation = self.cheap(shares.choices)
        squares: Floats = np.divide(deviation, mean, out=np.zeros(len(mean)), where=mean > 0) ** 2
        return squares
