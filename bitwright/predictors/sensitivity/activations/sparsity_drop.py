"""Sensitivity to sparsity: increase of the loss when half of a layer's weights, the smallest, are set to zero, one layer at a time.

    score(l) = loss(layer l with its smallest weights at zero) − loss(original)

with the mean next-token loss of the text in nats. In every matrix of the layer the `share` of weights with the smallest absolute value is set to
zero, as in magnitude pruning (Zhu & Gupta, 2017); the experts of a layer are pruned together.

An interpretation of PMPQ of CPTQuant (Nanda et al., 2412.03599), of which only the abstract was available ("sensitivity to sparsity"): there it is
the drop of a task's accuracy; the loss instead, and the share of one half, are choices made here. A unit outside the blocks is a layer of its own.

Cost: one forward pass over the tokens for the original, and one for each layer.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from bitwright.compress import Floats, applied
from bitwright.predictors.sensitivity.block_hooks import forward
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Tensor, Unit


def sparsity_scores(subject: Subject, *, share: float = 0.5) -> NDArray[np.float64]:
    """Measure the increase of the loss in nats per token for each unit `(n_units,)`; all units of a block get the same.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of weights set to zero must lie between 0 and 1, not at {share}")
    units = subject.space.units
    before = cached(subject, "text loss", partial(_loss, subject))
    rises = np.zeros(len(units))
    for layer in _layers(units):
        tensors = [tensor for u in layer for tensor in units[u].tensors]
        rises[layer] = cached(subject, f"text loss without {share}/{layer[0]}", partial(_loss_without, subject, tensors, share)) - before
    return rises


def without_smallest(weights: Floats, share: float) -> Floats:
    """Return `weights` `(n_rows, n_columns)` with the smallest `share` of them set to zero; among equal ones, the first."""
    n_zero = int(share * weights.size)
    changed = weights.copy().reshape(-1)
    changed[np.argsort(np.abs(changed), kind="stable")[:n_zero]] = 0
    return changed.reshape(weights.shape)


def _layers(units: tuple[Unit, ...]) -> list[list[int]]:
    """Return the indices of the units of each block, and of each unit outside the blocks alone."""
    found: dict[tuple[int, str], list[int]] = {}
    for u, unit in enumerate(units):
        found.setdefault((unit.layer, unit.name if unit.layer < 0 else ""), []).append(u)
    return list(found.values())


def _loss_without(subject: Subject, tensors: list[Tensor], share: float) -> NDArray[np.float64]:
    def smaller(tensor: Tensor) -> Floats:
        return without_smallest(subject.levels.source.read(tensor), share)

    with applied(subject.model, {tensor.name: partial(smaller, tensor) for tensor in tensors}):
        return _loss(subject)


def _loss(subject: Subject) -> NDArray[np.float64]:
    """Return the mean next-token loss of the text in nats, of shape `()`."""
    total = n = 0.0
    for ids, logits in forward(subject, "Measuring the loss on the text"):
        following = torch.from_numpy(ids[:, 1:].reshape(-1)).to(logits.device)
        total += float(cross_entropy(logits[:, :-1].flatten(0, 1).float(), following, reduction="sum"))
        n += len(following)
    return np.array(total / n)
