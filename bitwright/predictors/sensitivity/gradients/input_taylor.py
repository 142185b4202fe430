"""First-order sensitivity of the loss to noise in the input of a decoder block.

With x a token's hidden state before the block, g the gradient of the text's loss there, and noise δ of independent components with E‖δ‖² = ε²‖x‖²,

    E⟨g, δ⟩² = ε² ‖x‖² ‖g‖² / width,        score = E ‖x‖² ‖g‖² / width over all tokens

i.e. the mean squared change of the loss per token, in nats², for relative noise of norm one. The loss is the sum over the next tokens of the text.

An interpretation of TDMPQ of CPTQuant (Nanda et al., 2412.03599), of which only the abstract was available ("Taylor decomposition to assess each
layer's sensitivity to input perturbation"): the first order and the relative noise are choices made here.

Cost: one forward and one backward pass over the tokens.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives import Tap, Tapped, Use, decoder_blocks
from bitwright.predictors.sensitivity.block_hooks import Call, hook_blocks
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.gradients.losses import Batch, TextLabels
from bitwright.predictors.sensitivity.ranked_scores import layer_scores
from bitwright.predictors.sensitivity.subject import Subject

_SEQUENCES_AT_ONCE = 4


def taylor_scores(subject: Subject) -> NDArray[np.float64]:
    """Return E ‖x‖² ‖g‖² / width of each unit's block `(n_units,)`."""
    return layer_scores(subject.space, cached(subject, "input perturbation", lambda: _of_blocks(subject)))


class _RequireGradients(Tap):
    """Require gradients from the output of the embedding on."""

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Ignore outputs: gradients flow from the input."""

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        y.requires_grad_(True)


def _of_blocks(subject: Subject) -> NDArray[np.float64]:
    tokens, slope = subject.tokens, TextLabels().slope(subject)
    sums = np.zeros(len(decoder_blocks(subject.model)))
    with subject.progress.stage("Measuring the sensitivity to block inputs", tokens.n_tokens) as advance:
        for i, ids in enumerate(tokens.batches(_SEQUENCES_AT_ONCE)):
            inputs: list[Torch] = []
            logits = _forward(subject, ids, inputs)
            slopes = torch.autograd.grad(logits, inputs, slope(logits.detach(), Batch(ids, i, i * _SEQUENCES_AT_ONCE)))
            sums += [_power(x, g) for x, g in zip(inputs, slopes, strict=True)]
            advance(ids.size)
    return sums / tokens.n_tokens


def _forward(subject: Subject, ids: NDArray[np.int64], inputs: list[Torch]) -> Torch:
    """Return the logits with their graph; the input of each block is appended to `inputs`, in order."""

    def record(call: Call) -> None:
        inputs.append(call.x)

    model = subject.model
    with torch.enable_grad(), hook_blocks(model, record), Tapped(model, _RequireGradients()):
        logits: Torch = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits.float()
    return logits


def _power(x: Torch, slopes: Torch) -> float:
    """Return Σ ‖x‖² ‖g‖² / width over tokens."""
    return float((x.detach().double().square().sum(dim=-1) * slopes.double().square().mean(dim=-1)).sum())
