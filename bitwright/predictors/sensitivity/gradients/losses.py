"""Losses for gradient-based proxies, each given by its gradient with respect to the logits.

Every loss is in nats, summed over the tokens of a sequence. At the logits z of one position, with p = softmax(z):

    labels drawn from p              −log p(label)          p − 1[label]     its expected outer product is the Fisher information
    the text's own next token        −log p(next)           p − 1[next]      the language-model loss
    divergence from the original     KL(original ‖ p)       p − original     zero at the original weights, so useful only at others
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives import Reference, draw
from bitwright.predictors.sensitivity.subject import Subject


@dataclass(frozen=True, eq=False)
class Batch:
    """Batch number `index` of sequences `ids` `(n_sequences, length)`; `first` is the index of its first sequence in the text."""

    ids: NDArray[np.int64]
    index: int
    first: int


#: logits `(n_sequences, length, n_vocabulary)` float32 and their batch -> gradient of the loss with respect to the logits, of the same shape
Slope = Callable[[Torch, Batch], Torch]


class Loss(ABC):
    """Loss over sequences. `positions` are the positions of a sequence that have a loss; at each, the gradient is p minus a constant."""

    name: str
    positions: slice

    @abstractmethod
    def slope(self, subject: Subject) -> Slope:
        """Return the gradient as a function of the logits. Called while the model has its original weights, so that it may compute predictions."""


@dataclass(frozen=True)
class SampledLabels(Loss):
    """Loss −log p(label), the label drawn at each position from the model's own prediction, the generator seeded by `Subject.seed` and the batch."""

    name = "sampled labels"
    positions = slice(None)

    def slope(self, subject: Subject) -> Slope:
        """Return the slope of the log-likelihood of labels drawn from the model's own distribution."""
        return sampled_slope(subject.seed)


@dataclass(frozen=True)
class TextLabels(Loss):
    """Loss −log p of the text's own next token at every position but the last of a sequence."""

    name = "text labels"
    positions = slice(-1)

    def slope(self, subject: Subject) -> Slope:  # noqa: ARG002
        """Return the slope of the log-likelihood of the text's next tokens, 0 at the last."""

        def at(logits: Torch, batch: Batch) -> Torch:
            following = torch.from_numpy(np.roll(batch.ids, -1, axis=1)).reshape(-1, 1)
            slope = _less_labels(logits.softmax(dim=-1), following)
            slope[:, -1] = 0  # no next token
            return slope

        return at


def sampled_slope(seed: int) -> Slope:
    """Return the slope of `SampledLabels`, whose draws are by the seed and the batch."""

    def at(logits: Torch, batch: Batch) -> Torch:
        probabilities = logits.softmax(dim=-1)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch.index)
        return _less_labels(probabilities, draw(probabilities.view(-1, probabilities.shape[-1]), generator))

    return at


def compute_reference(subject: Subject) -> Reference:
    """Compute the original's predictions on the subject's tokens in one forward pass."""
    return Reference(subject.model, subject.tokens, scratch=subject.levels.folder, progress=subject.progress)


@dataclass(frozen=True)
class FromOriginal(Loss):
    """Loss KL(original ‖ changed) at every position. `predictions` returns the original's predictions on the same tokens, by default from a forward
    pass before the sweep.
    """

    predictions: Callable[[Subject], Reference] = compute_reference
    name = "from original"
    positions = slice(None)

    def slope(self, subject: Subject) -> Slope:
        """Return the slope of KL(original ‖ model)."""
        reference = self.predictions(subject)

        def at(logits: Torch, batch: Batch) -> Torch:
            return logits.softmax(dim=-1).sub_(reference.sequences(batch.first, len(batch.ids), logits.device).exp())

        return at


def _less_labels(probabilities: Torch, labels: Torch) -> Torch:
    """Compute p − 1[label] in place, since logits are the largest tensor of a sweep; `labels` is `(n_positions, 1)`."""
    labels = labels.to(probabilities.device)
    flat = probabilities.view(-1, probabilities.shape[-1])
    flat.scatter_add_(1, labels, -torch.ones_like(labels, dtype=probabilities.dtype))
    return probabilities
