"""The record of one measured choice, and the standard error of a mean."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """Divergence, perplexity and top-1 agreement of one choice, with the tokens read and the seconds spent.

    `sequence_nats` is the divergence of each held-out sequence in nats per token, in the order of the text, so that two choices can be compared by
    paired differences. `perplexity` and `top1_agreement` (a share) are over all tokens.
    """

    choice: tuple[int, ...]
    sequence_nats: tuple[float, ...]
    perplexity: float
    top1_agreement: float
    n_tokens: int
    seconds: float

    @property
    def nats_per_token(self) -> float:
        """Return the mean divergence from the original model."""
        return float(np.mean(self.sequence_nats))

    @property
    def standard_error(self) -> float:
        """Return the standard error of `nats_per_token` over sequences; infinite for a single one."""
        return standard_error(np.array(self.sequence_nats))


def standard_error(values: "np.typing.NDArray[np.float64]") -> float:
    """Return the standard error of the mean of `values` `(n,)`; infinite for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
