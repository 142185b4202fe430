"""A choice in a torch module, for as long as a `with` block lasts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from bitwright.compress.levels import Levels
from bitwright.compress.model import Model
from bitwright.spaces import Format, Tensor


@contextmanager
def applied(model: Model, levels: Levels, formats: Mapping[str, Format]) -> Iterator[None]:
    """Give the tensors named in `formats` the weights they have in that format; the old weights come back when the block ends.

    Only weights are touched. Peak memory is that of the parameters changed, twice.
    """
    parameters = dict(model.module.named_parameters())
    changed = {piece.parameter for name in formats for piece in model.pieces[name]}
    saved = {name: parameters[name].detach().clone() for name in changed}
    try:
        with torch.no_grad():
            for tensor in model.tensors:
                if tensor.name in formats:
                    _write(model, levels, tensor=tensor, form=formats[tensor.name])
        yield
    finally:
        with torch.no_grad():
            for name, weights in saved.items():
                parameters[name].copy_(weights)


def _write(model: Model, levels: Levels, *, tensor: Tensor, form: Format) -> None:
    weights, start = torch.from_numpy(levels.weights(tensor, form)), 0
    for piece in model.pieces[tensor.name]:
        parameter = model.module.get_parameter(piece.parameter)
        piece.from_engine(parameter, weights[start : start + piece.n_rows].to(parameter.device))
        start += piece.n_rows
