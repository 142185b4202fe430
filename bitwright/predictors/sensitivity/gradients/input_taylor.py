"""How much the loss moves, to first order, when what a decoder block is given is perturbed a little.

With x a token's hidden state before the block, g the gradient of the text's loss there, and noise δ of independent components with E‖δ‖² = ε²‖x‖²,

    E⟨g, δ⟩² = ε² ‖x‖² ‖g‖² / width,        score = E ‖x‖² ‖g‖² / width over all tokens

which is what relative noise of one per token would add to the loss's square, in nats². The loss is the sum over the next tokens of the text.

It stands for TDMPQ of CPTQuant (Nanda et al., 2412.03599), of which only the abstract could be read ("Taylor decomposition to assess each layer's
sensitivity to input perturbation"): the first order and the relative noise are this file's reading.

Cost: one forward and one backward over the tokens.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives import Tap, Tapped, Use
from bitwright.predictors.sensitivity.block_hooks import Call, decoder_blocks, watched
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.gradients.losses import Batch, TextLabels
from bitwright.predictors.sensitivity.ranked_scores import layer_scores
from bitwright.predictors.sensitivity.subject import Subject

_SEQUENCES_AT_ONCE = 4


def taylor_scores(subject: Subject) -> NDArray[np.float64]:
    """E ‖x‖² ‖g‖² / width of the unit's block `(n_units,)`."""
    return layer_scores(subject.space, kept(subject, "input perturbation", lambda: _of_blocks(subject)))


class _Sensitive(Tap):
    """Lets gradients be taken from the look-up of the embedding on."""

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Has its gradient from its input."""

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        y.requires_grad_(True)


def _of_blocks(subject: Subject) -> NDArray[np.float64]:
    tokens, slope = subject.tokens, TextLabels().slope(subject)
    sums = np.zeros(len(decoder_blocks(subject.model)))
    with subject.progress.stage("Perturbing what blocks are given", tokens.n_tokens) as advance:
        for i, ids in enumerate(tokens.batches(_SEQUENCES_AT_ONCE)):
            given: list[Torch] = []
            logits = _forward(subject, ids, given)
            slopes = torch.autograd.grad(logits, given, slope(logits.detach(), Batch(ids, i, i * _SEQUENCES_AT_ONCE)))
            sums += [_power(x, g) for x, g in zip(given, slopes, strict=True)]
            advance(ids.size)
    return sums / tokens.n_tokens


def _forward(subject: Subject, ids: NDArray[np.int64], given: list[Torch]) -> Torch:
    """Logits with their graph; what each block was given is appended to `given`, in order."""

    def told(call: Call) -> None:
        given.append(call.x)

    model = subject.model
    with torch.enable_grad(), watched(model, told), Tapped(model, _Sensitive()):
        logits: Torch = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits.float()
    return logits


def _power(x: Torch, slopes: Torch) -> float:
    """Σ ‖x‖² ‖g‖² / width over tokens."""
    return float((x.detach().double().square().sum(dim=-1) * slopes.double().square().mean(dim=-1)).sum())
