"""Interface of predictors of whole plans: fitted to measured choices, they predict the divergence of others with a standard deviation."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices

#: choices `(n, n_units)` -> predicted divergence and its standard deviation, each `(n,)`, nats/token; the latter is that of the true value, without
#: measurement noise
Predict = Callable[[Choices], tuple[NDArray[np.float64], NDArray[np.float64]]]


class Predictor(ABC):
    """Surrogate model fitted to measured choices. A fit does not change the predictor, so one object serves a whole cross-validation."""

    @abstractmethod
    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """Fit to `choices` `(n, n_units)`, their divergences `values` `(n,)` and the standard errors `errors` `(n,)` of these.

        Raises:
            UserError: too few choices for this predictor; the message says how many are needed.
        """
