"""From a cheap measurement to the dear one: plain rounding to the real codec, a few tokens to many, one text to another.

A prediction learnt from many cheap evaluations takes the place of the table's sum, and the few dear ones say by how much the two differ, in the same
terms as `ridge`: a factor, a trend, and units whose prices differ between the two. After APQ (Wang et al., CVPR 2020, section 3.3), which goes on
training a network of cheap samples on few dear ones; here what was learnt cheaply is the prior mean, with its own uncertainty, so that no dear
evaluation is spent on what is known.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Floats, Scatter, in_nats, learn_from_values
from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.ridge import wrong_prices
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class TransferPredictor(Predictor):
    """Around `cheap`, what a predictor learnt from cheap evaluations; `table` `(n_units, n_formats)`, in any units, says which units weigh how much.

    Before anything dear is measured it predicts what `cheap` does, with an unknown factor.
    """

    cheap: Predict
    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """See `Predictor.fit`; no number of choices is too small."""
        measured = self._shares(choices)
        prior = wrong_prices(measured, self.table.shape[1])
        learnt = learn_from_values(replace(prior, scatters=(*prior.scatters, _CheapError(self.cheap))), measured, values, errors)
        return lambda others: in_nats(learnt, self._shares(others))

    def _shares(self, choices: Choices) -> Shares:
        mean, _ = self.cheap(choices)
        positive = mean > 0
        log_mean = np.log(mean, out=np.full(len(mean), -np.inf), where=positive)
        return replace(shares_of(self.table, choices), log_sum=log_mean)


@dataclass(frozen=True, eq=False)
class _CheapError(Scatter):
    """What the cheap prediction does not know."""

    cheap: Predict
    guess: float = 0.5
    spread: float = 1.0

    def variance(self, shares: Shares) -> Floats:
        """See `Scatter.variance`."""
        mean, deviation = self.cheap(shares.choices)
        squares: Floats = np.divide(deviation, mean, out=np.zeros(len(mean)), where=mean > 0) ** 2
        return squares
