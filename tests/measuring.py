"""A model's module with the weights of a choice, beside what the contracts measure with."""

from copy import deepcopy

import torch
from transformers import PreTrainedModel

from bitwright.compress import Levels, Model
from bitwright.objectives import is_mixture
from bitwright.spaces import Choice, Space
from bitwright.testing.measuring import levels_of, random_tokens, space_of, uniform, weights_of

__all__ = ["changed", "levels_of", "random_tokens", "space_of", "uniform", "weights_of"]


def changed(model: Model, levels: Levels, space: Space, choice: Choice) -> PreTrainedModel:
    """A copy of the module in float64 with the choice's weights, written piece by piece without the code under test."""
    other = deepcopy(model.module).double()
    if is_mixture(model):
        other.set_experts_implementation("eager")  # the other one knows no float64
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        for unit, form in zip(space.units, choice, strict=True):
            for tensor in unit.tensors:
                rows = torch.from_numpy(levels.weights(tensor, space.formats[form])).double()
                start = 0
                for piece in model.pieces[tensor.name]:
                    matrix = parameters[piece.parameter] if piece.expert < 0 else parameters[piece.parameter][piece.expert]
                    matrix[torch.from_numpy(piece.order())] = rows[start : start + piece.n_rows]
                    start += piece.n_rows
    return other
