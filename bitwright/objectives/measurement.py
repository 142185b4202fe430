"""What came out of measuring one choice."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """A choice, what it is worth, and what finding that out cost.

    `sequence_nats` is the divergence of each held-out sequence in nats per token, in the order of the held-out text, so that two choices can be
    compared pair by pair. `perplexity` and `top1_agreement` (a share) are over all tokens.
    """

    choice: tuple[int, ...]
    sequence_nats: tuple[float, ...]
    perplexity: float
    top1_agreement: float
    n_tokens: int
    seconds: float

    @property
    def nats_per_token(self) -> float:
        """Mean divergence from the original model."""
        return float(np.mean(self.sequence_nats))

    @property
    def standard_error(self) -> float:
        """Standard error of `nats_per_token` over sequences; infinite with a single one."""
        return standard_error(np.array(self.sequence_nats))


def standard_error(values: "np.typing.NDArray[np.float64]") -> float:
    """Standard error of the mean of `values` `(n,)`; infinite when there are fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
