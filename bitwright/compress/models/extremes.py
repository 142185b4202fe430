"""Out-of-range weights: magnitudes beyond half floats, infinite weights and NaN."""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.models.float_types import LARGEST_HALF
from bitwright.compress.models.model import Model
from bitwright.compress.models.source import Floats
from bitwright.errors import ModelError

_SAMPLE = "The quick brown fox, 42 years old, said: hello."


def extremes(model: Model) -> dict[str, float]:
    """Return the largest magnitude of each engine matrix that exceeds half floats, infinite or NaN if a weight is; other matrices are left out."""
    odd = {name for name, part in model.weight_parts() if not largest(part) <= LARGEST_HALF}
    parameters = {tensor.name: {piece.parameter for piece in model.pieces.get(tensor.name, ())} for tensor in model.tensors}
    found = {tensor.name: _largest_of(model.source.read(tensor)) for tensor in model.tensors if parameters[tensor.name] & odd}
    return {name: value for name, value in found.items() if not value <= LARGEST_HALF}


def largest(weights: Torch) -> float:
    """Return the largest magnitude, NaN if a weight is."""
    low, high = weights.detach().aminmax()
    return float(torch.maximum(-low, high))


@torch.inference_mode()
def require_sound(model: Model) -> None:
    """Require that a model gives finite logits. Infinite or NaN weights that do not reach the output, as in an expert that is never chosen, are
    accepted.

    Raises:
        ModelError: the logits are not finite; the message names the tensors.
    """
    broken = [*dict.fromkeys(name for name, part in model.weight_parts() if not np.isfinite(largest(part)))]
    if not broken:
        return
    n_tokens = int(model.module.config.to_dict()["vocab_size"])
    ids = torch.tensor([model.tokenizer(_SAMPLE)["input_ids"]], device=model.device).clamp(max=n_tokens - 1)
    if not torch.isfinite(model.module(ids, use_cache=False).logits).all():
        raise ModelError(
            f"A model's weights must be finite; {model.source.name} has infinite or undefined ones in {named(model, broken)}: repair it."
        )


def named(model: Model, parameters: list[str]) -> str:
    """Name some parameters by the engine's matrices in them, a vector by its own name; the first three of many."""
    inside = {name: [tensor for tensor, pieces in model.pieces.items() if any(piece.parameter == name for piece in pieces)] for name in parameters}
    undefined = {name for name, value in extremes(model).items() if not np.isfinite(value)}
    names = [tensor for name in parameters for tensor in ([t for t in inside[name] if t in undefined] or [name])]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _largest_of(weights: Floats) -> float:
    return float(np.maximum(weights.max(initial=0), -weights.min(initial=0)))
