"""Compression-identified exemplars: where a population of compressed models agrees on another token than the original.

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
    """The most likely token after every token, `(n_sequences, length)`."""
    found = [
        model.module(torch.from_numpy(batch).to(model.device), use_cache=False).logits.argmax(dim=-1).cpu().numpy()
        for batch in tokens.batches(_SEQUENCES_AT_ONCE)
    ]
    return np.concatenate(found)


def exemplars(original: NDArray[np.int64], compressed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which predictions `(n_sequences, length)` of the original are not a mode of those of compressed models `(n_models, n_sequences, length)`.

    Where several tokens are predicted equally often and the original's is among them, it counts as kept.
    """
    most = np.max([(compressed == prediction).sum(axis=0) for prediction in compressed], axis=0)  # (n_sequences, length): votes for a mode
    lost: NDArray[np.bool_] = (compressed == original).sum(axis=0) < most
    return lost


@dataclass(frozen=True, eq=False)
class OnSequences(TokenObjective):
    """An objective over some sequences alone: those for which `chosen` `(n_sequences,)` is true, e.g. `exemplars(...).any(axis=1)`.

    Raises:
        ObjectiveError: `summarise` is given none of them.
    """

    objective: TokenObjective
    chosen: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """E.g. `kl of 12 sequences`."""
        return f"{self.objective.name} of {self.chosen.sum()} sequences"

    @property
    def unit(self) -> str:
        """That of the objective."""
        return self.objective.unit

    def of_tokens(self, original: Torch, changed: Torch, following: Torch) -> Torch:
        """See `TokenObjective.of_tokens`."""
        return self.objective.of_tokens(original, changed, following)

    def by_sequence(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of all sequences; `summarise` leaves out the others."""
        return self.objective.by_sequence(values)

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """What the objective makes of the chosen ones among the first `n` sequences `(n,)`."""
        chosen = per_sequence[self.chosen[: len(per_sequence)]]
        if not len(chosen):
            raise ObjectiveError(
                f"An objective needs a sequence at least; none of the first {len(per_sequence)} is among the {self.chosen.sum()} chosen: "
                "measure on more text, or choose others."
            )
        return self.objective.summarise(chosen)
