"""Healing: training of the real numbers that packed matrices store beside their codes, towards the original's predictions; `--step heal`.

Scales, minima and low-rank pairs are trained by Adam (Kingma & Ba, ICLR 2015) on the divergence KL(original ‖ quantized) at every position of the
calibration text, whose sequences are read again in another order until `n_tokens` are read. Codes, masks and everything that is not packed stay, so
that the file has the bytes that it had. A number's step is relative to the root mean square of its matrix, and falls along a cosine to nothing.

Differs from LoRA (Hu et al., ICLR 2022) in that no adapter is added: a pair is trained where the format has one, and the scales everywhere; and from
EfficientQAT and PEQA, which train scales on a text's next tokens, in that the original's predictions are the target.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model, PackedTensors, TrainableMatrix, is_trainable, matrix_shape, planned_weights, swapping
from bitwright.errors import UserError
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.progress import Progress
from bitwright.spaces import Format, Healed

N_TOKENS = 16_384
HEAL = "heal"
_SEQUENCES_AT_ONCE = 4
_DECAYS = 0.9, 0.95
_CHECKED = 8  # sequences that tell whether healing helped


@dataclass(frozen=True)
class Healing:
    """The step `heal`, which reads `n_tokens` of the calibration text forward and backward."""

    n_tokens: int = N_TOKENS
    name = HEAL

    @property
    def words(self) -> str:
        """The step with its field, as `--step` takes it."""
        return f"{self.name}:tokens={self.n_tokens}"

    @property
    def planned(self) -> Healed:
        """The plan's record of the step, whose result is in the plan's codes."""
        return Healed(tokens=self.n_tokens)


def healing_named(words: str) -> Healing:
    """Parse healing with its optional field: `heal:tokens=8192`.

    Raises:
        UserError: the field is another one, or is no whole number above 0.
    """
    _, _, field = words.partition(":")
    key, _, value = field.partition("=")
    if not field:
        return Healing()
    if key != "tokens" or not value.isdecimal() or not int(value):
        raise UserError(f"The step {HEAL} takes a number of tokens above 0; '{words}' has none: write {HEAL}:tokens={N_TOKENS}.")
    return Healing(int(value))


def require_healable(*, target: str, sampled: bool) -> None:
    """Require what healing needs: packed matrices of the target `native`, and a text that is not `sampled` from the model alone.

    Raises:
        UserError: there is none.
    """
    if not target.startswith("native"):
        raise UserError(f"The step {HEAL} trains what the target native stores beside codes; '{target}' is another: leave it out.")
    if sampled:
        raise UserError(f"The step {HEAL} trains on text, and none is given but the model's own: name a --calibration, or leave it out.")


@dataclass(frozen=True)
class Training:
    """Tokens to read, the seed of their order, and the first step of a number, relative to the root mean square of its matrix."""

    n_tokens: int
    seed: int
    step: float = 0.01


def healed(
    model: Model, levels: PackedTensors, wanted: Mapping[str, Format], reference: Reference, training: Training, *, progress: Progress
) -> dict[str, TrainableMatrix]:
    """Train the numbers of the tensors in `wanted` (tensor → format) from their bytes in `levels` on, and return those that have any, by tensor; none
    where the first sequences of the text do not diverge less afterwards.

    `reference` has the original's predictions on all of its text. Memory beside the model: the original weights, a gradient for each weight, a byte
    for each code. The model must have its original weights, and has them again afterwards.
    """
    tensors = [tensor for tensor in model.tensors if tensor.name in wanted]
    packed = [t for t in tensors if wanted[t.name].name != t.stored and is_trainable(wanted[t.name])]
    matrices = {t.name: TrainableMatrix(levels.packed(t, wanted[t.name]), wanted[t.name], matrix_shape(t)) for t in packed}
    groups = [
        {"params": [number], "lr": training.step * float(number.detach().square().mean().sqrt())} for m in matrices.values() for number in m.numbers
    ]
    batches = _batches(reference.tokens.ids.shape, training.n_tokens, np.random.default_rng(training.seed))
    if not groups:
        return {}
    optimizer = torch.optim.Adam(groups, betas=_DECAYS, eps=1e-12)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.5 * (1 + math.cos(math.pi * i / len(batches))))
    with swapping(model) as swapper, progress.stage("Healing", len(batches)) as advance:
        swapper.load(planned_weights(model, levels, formats=dict(wanted)))
        before = _divergence(model, reference)
        with _differentiable(model, matrices):
            for batch in batches:
                _write(model, matrices)
                _differentiate(model, reference, batch)
                optimizer.zero_grad()
                _pull(model, matrices)
                optimizer.step()
                falling.step()
                advance(1)
        with torch.no_grad():
            _write(model, matrices)
        after = _divergence(model, reference)
    if after < before:
        return matrices
    progress.note(
        f"Healing left the first {min(_CHECKED, len(reference.tokens.ids))} sequences of the calibration text at {after:.4f} nats per token, where "
        f"they were at {before:.4f}: what was packed before it ships. More tokens may help."
    )
    return {}


def _divergence(model: Model, reference: Reference) -> float:
    """Return the mean divergence of the first sequences of the text, for the module's weights as they are."""
    return float(reference.measure(model, [KullbackLeibler()], stop=_CHECKED).mean())


def _batches(shape: tuple[int, ...], n_tokens: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the sequences of each batch of a text of `shape` `(n_sequences, length)`, in an order of their own in every reading of it."""
    n_sequences, length = shape
    n_batches, drawn = max(1, round(n_tokens / (length * min(_SEQUENCES_AT_ONCE, n_sequences)))), list[NDArray[np.int64]]()
    while len(drawn) < n_batches:
        order = rng.permutation(n_sequences)
        drawn += [np.sort(order[i : i + _SEQUENCES_AT_ONCE]) for i in range(0, n_sequences, _SEQUENCES_AT_ONCE)]
    return drawn[:n_batches]


def _differentiate(model: Model, reference: Reference, sequences: NDArray[np.int64]) -> None:
    """Leave the gradient of the mean divergence of some sequences in the parameters of the module."""
    logits = model.module(torch.from_numpy(reference.tokens.ids[sequences]).to(model.device), use_cache=False).logits
    with torch.no_grad():
        original = torch.cat([reference.sequences(int(i), 1, logits.device) for i in sequences]).exp_()
        slope = logits.float().softmax(dim=-1).sub_(original).div_(logits.shape[0] * logits.shape[1])
    torch.autograd.backward(logits, slope.to(logits.dtype))


@torch.no_grad()
def _write(model: Model, matrices: Mapping[str, TrainableMatrix]) -> None:
    """Write the weights by the numbers as they are now into the module, and clear its gradients."""
    for name, matrix in matrices.items():
        rows, start = matrix.weights(), 0
        for piece in model.pieces[name]:
            parameter = model.module.get_parameter(piece.parameter)
            piece.from_engine(parameter, rows[start : start + piece.n_rows].to(parameter.device))
            parameter.grad = None
            start += piece.n_rows


def _pull(model: Model, matrices: Mapping[str, TrainableMatrix]) -> None:
    """Give the numbers the gradients that those of the module's weights make."""
    for name, matrix in matrices.items():
        parts = [(model.module.get_parameter(piece.parameter), piece) for piece in model.pieces[name]]
        slopes = [piece.to_module(piece.cut(_slope(parameter))).float().cpu() for parameter, piece in parts]
        torch.autograd.backward(matrix.weights(), torch.cat(slopes))


def _slope(parameter: Torch) -> Torch:
    """Return the gradient of a parameter, zeros for an expert that no token was routed to."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@contextmanager
def _differentiable(model: Model, tensors: Mapping[str, object]) -> Iterator[None]:
    """Have the module's parameters of some tensors differentiated, and no others, as long as the block lasts."""
    trained = {piece.parameter for name in tensors for piece in model.pieces[name]}
    before = {name: parameter.requires_grad for name, parameter in model.module.named_parameters()}
    try:
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(name in trained)
        yield
    finally:
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(before[name])
            parameter.grad = None
