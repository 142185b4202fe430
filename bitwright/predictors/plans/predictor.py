"""What every predictor of a whole plan is: from choices that were measured to the expected value of any other, and how far off that may be."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices

#: choices `(n, n_units)` -> expected divergence and its standard deviation, each `(n,)`, nats/token; the deviation is that of the true value, without
#: the noise of a measurement
Predict = Callable[[Choices], tuple[NDArray[np.float64], NDArray[np.float64]]]


class Predictor(ABC):
    """Learns from measured choices. A fit changes nothing in the predictor, so the same one serves a cross-validation."""

    @abstractmethod
    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """A prediction from `choices` `(n, n_units)`, their divergences `values` `(n,)` and the standard errors of these `errors` `(n,)`.

        Raises:
            UserError: too few choices for what the predictor has to learn; the message names how many are needed.
        """
