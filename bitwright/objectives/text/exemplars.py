"""Compression-identified exemplars: tokens where most compressed models of a population predict another next token than the original.

Source: Hooker et al., 2019, "What do compressed deep neural networks forget?" (arXiv 1911.05248): an example is an exemplar where the modal
prediction of the compressed population differs from that of the original one. Here the original is a single model, an example is a token of
the held-out text, and the population is the plans measured so far.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives.objective import Estimate, TokenObjective
from bitwright.objectives.text.tokens import Tokens

_SEQUENCES_AT_ONCE = 8


@torch.inference_mode()
def predictions(model: Model, tokens: Tokens) -> NDArray[np.int64]:
    """Return the most likely next token at every position `(n_sequences, length)`."""
    found = [
        model.module(torch.from_numpy(batch).to(model.device), use_cache=False).logits.argmax(dim=-1).cpu().numpy()
        for batch in tokens.batches(_SEQUENCES_AT_ONCE)
    ]
    return np.concatenate(found)


def exemplars(original: NDArray[np.int64], compressed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return at which positions `(n_sequences, length)` the original's prediction is not a mode of the compressed models'
    `(n_models, n_sequences, length)`.

    Where several tokens are predicted equally often and the original's is one of them, the position is no exemplar.
    """
    most = np.max([(compressed == prediction).sum(axis=0) for prediction in compressed], axis=0)  # (n_sequences, length): votes for a mode
    lost: NDArray[np.bool_] = (compressed == original).sum(axis=0) < most
    return lost


@dataclass(frozen=True, eq=False)
class OnSequences(TokenObjective):
    """Objective over a subset of the sequences: those for which `chosen` `(n_sequences,)` is true, e.g. `exemplars(...).any(axis=1)`.

    Raises:
        ObjectiveError: none of them is among the sequences given to `summarise`.
    """

    objective: TokenObjective
    chosen: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """Return e.g. `kl of 12 sequences`."""
        return f"{self.objective.name} of {self.chosen.sum()} sequences"

    @property
    def unit(self) -> str:
        """Return the unit of the objective."""
        return self.objective.unit

    def of_tokens(self, original: Torch, changed: Torch, following: Torch) -> Torch:
        """See `TokenObjective.of_tokens`."""
        return self.objective.of_tokens(original, changed, following)

    def by_sequence(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of all sequences; `summarise` selects the chosen ones."""
        return self.objective.by_sequence(values)

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """Summarise the chosen sequences among the first `n` `(n,)`."""
        chosen = per_sequence[self.chosen[: len(per_sequence)]]
        if not len(chosen):
            raise ObjectiveError(
                f"An objective must have at least one sequence; none of the first {len(per_sequence)} is among the {self.chosen.sum()} chosen: "
                "measure on more text, or choose other sequences."
            )
        return self.objective.summarise(chosen)
