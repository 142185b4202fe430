"""What a layer's smallest weights are worth: the rise of the loss when half of them are set to zero, one layer at a time.

    score(l) = loss(layer l with its smallest weights at zero) − loss(original)

with the mean next-token loss of the text in nats. In every matrix of the layer the `share` of smallest absolute value is taken, as in magnitude
pruning (Zhu & Gupta, 2017), the experts of a layer together.

It stands for PMPQ of CPTQuant (Nanda et al., 2412.03599), of which only the abstract could be read ("sensitivity to sparsity"): there it is the drop
of a task's accuracy; the loss in its place, and the share of one half, are this file's. A unit outside the blocks is a layer of its own.

Cost: one forward over the tokens for the original, and one for each layer.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from bitwright.compress import Floats, applied
from bitwright.predictors.sensitivity.block_hooks import forward
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Tensor, Unit


def sparsity_scores(subject: Subject, *, share: float = 0.5) -> NDArray[np.float64]:
    """The rise of the loss in nats per token for each unit `(n_units,)`; the units of a block share theirs.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of weights set to zero must lie between 0 and 1, not at {share}")
    units = subject.space.units
    before = kept(subject, "text loss", partial(_loss, subject))
    rises = np.zeros(len(units))
    for layer in _layers(units):
        tensors = [tensor for u in layer for tensor in units[u].tensors]
        rises[layer] = kept(subject, f"text loss without {share}/{layer[0]}", partial(_loss_without, subject, tensors, share)) - before
    return rises


def without_smallest(weights: Floats, share: float) -> Floats:
    """The same `weights` `(n_rows, n_columns)` with that share of them set to zero, the smallest; of equal ones, the first."""
    n_zero = int(share * weights.size)
    changed = weights.copy().reshape(-1)
    changed[np.argsort(np.abs(changed), kind="stable")[:n_zero]] = 0
    return changed.reshape(weights.shape)


def _layers(units: tuple[Unit, ...]) -> list[list[int]]:
    """Indices of the units of each block, and of each unit outside the blocks alone."""
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
    """Mean loss of the text's next token in nats, of shape `()`."""
    total = n = 0.0
    for ids, logits in forward(subject, "Reading the text's loss"):
        following = torch.from_numpy(ids[:, 1:].reshape(-1)).to(logits.device)
        total += float(cross_entropy(logits[:, :-1].flatten(0, 1).float(), following, reduction="sum"))
        n += len(following)
    return np.array(total / n)
