"""Scores of the channels of feed-forward parts: how much each gives on a text, for the order in which channels are taken away."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.objectives import Tokens
from bitwright.progress import Progress
from bitwright.spaces import role_of

_DOWN = "ffn_down"


class ChannelScoring(Protocol):
    """Measurement of what the channels of a model's dense feed-forward parts are worth."""

    def __call__(self, model: Model, tokens: Tokens, *, seed: int, progress: Progress) -> dict[str, NDArray[np.float64]]:
        """Return the score of each channel `(n_channels,)`, the greater the more it is worth, by the name of the part's down matrix. Draws are by
        `seed`, and the model must have its original weights.
        """


def down_matrices(model: Model) -> set[str]:
    """Return the names of the down matrices of dense feed-forward parts."""
    return {tensor.name for tensor in model.tensors if tensor.name in model.pieces and role_of(tensor) == _DOWN}
