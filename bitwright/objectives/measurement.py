"""Record of one measured choice, an objective's estimate, and the standard error of a mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """Estimate: a value and its standard error, both in the objective's unit; the error is infinite where it cannot be estimated."""

    value: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measurement of one choice on the first `n_sequences` sequences of a text.

    `estimates` has the value of every objective by its name, in the order of the objectives. `by_sequence` `(n_sequences, n_token_objectives)` are
    the values of the token objectives in the order of the text, so that two choices can be compared by paired differences. `n_tokens` were read, and
    `seconds` were spent on all objectives, in this process or an earlier one.
    """

    choice: tuple[int, ...]
    estimates: Mapping[str, Estimate]
    by_sequence: NDArray[np.float64]
    n_sequences: int
    n_tokens: int
    seconds: float

    @property
    def first(self) -> Estimate:
        """Return the estimate of the first objective, the one that decides."""
        return next(iter(self.estimates.values()))

    @property
    def nats_per_token(self) -> float:
        """Return the mean divergence from the original model, where `kl` was measured."""
        return self.estimates["kl"].value

    @property
    def standard_error(self) -> float:
        """Return the standard error of `nats_per_token` over sequences; infinite for a single one."""
        return self.estimates["kl"].standard_error

    @property
    def perplexity(self) -> float:
        """Return the perplexity of the changed model, where it was measured."""
        return self.estimates["perplexity"].value

    @property
    def top1_agreement(self) -> float:
        """Return the share of tokens with the original's most probable next token, where `flips` was measured."""
        return 1 - self.estimates["flips"].value


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of `values` `(n,)`; infinite for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
