"""Matrices that a converter multiplies by constants, as that of Falcon-H1 does with the multipliers of its configuration.

llama.cpp reads no such multiplier, so the matrix of the file is the module's times a constant, or some of its rows times one, others times another.
The rows are in the same order. Each constant is estimated by least squares over a run of rows, and every weight must be what it gives, up to the
rounding of the float type in the file.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor as Torch

from bitwright.compress.models.gguf.value_matching import block_of
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor

#: float type → relative error of a weight of it that was rounded once, with room for a product of two constants
_ROUNDING = {"F32": 2.0**-21, "F16": 2.0**-10, "BF16": 2.0**-7}
_SMALLEST_NORMAL = 2.0**-14  # of half floats; below, the error is absolute


def scaled_pieces(tensor: Tensor, weights: Torch, parameters: Mapping[str, Torch], *, hint: str) -> tuple[ParameterSlice, ...]:
    """Return the slices of a parameter that `weights` `(n_rows, n_columns)` of a file are multiples of, expert by expert for a stack; none for none.

    `hint` is the parameter that a table of names gives the tensor, empty for none.
    """
    rounding = _ROUNDING.get(tensor.stored, 0.0)
    shape = tuple(tensor.shape)
    names = [name for name, weight in parameters.items() if tuple(weight.shape) == shape and block_of(name) == block_of(tensor.name)]
    for name in sorted(names, key=lambda name: name != hint) if rounding else ():
        own = parameters[name].detach().float().cpu()
        pieces: list[ParameterSlice] = []
        for expert, part in enumerate(weights.reshape(-1, *shape[-2:])):
            matrix = own[expert] if own.dim() == 3 else own
            pieces += _pieces_of(part, matrix, name, expert if own.dim() == 3 else -1, rounding)
        if sum(piece.n_rows for piece in pieces) == len(weights):
            return tuple(pieces)
    return ()


def _pieces_of(rows: Torch, own: Torch, name: str, expert: int, rounding: float) -> Iterator[ParameterSlice]:
    """Yield the slices of the matrix `own` that `rows` are multiples of, both `(n_rows, n_columns)`; nothing where some are none."""
    norms = own.square().sum(1)
    products = (rows * own).sum(1)
    if not bool((norms > 0).all()) or not bool((products > 0).all()):
        return
    scales = products / norms
    ends = [*(torch.nonzero((scales.diff() / scales[1:]).abs() > rounding).flatten() + 1).tolist(), len(rows)]
    found, start = [], 0
    for end in ends:
        run = slice(start, end)
        scale = float(products[run].sum(dtype=torch.float64) / norms[run].sum(dtype=torch.float64))
        expected = scale * own[run]
        if not bool(((rows[run] - expected).abs() <= rounding * expected.abs().clamp(min=_SMALLEST_NORMAL)).all()):
            return
        found.append(ParameterSlice(name, expert, range(start, end), scale=scale))
        start = end
    yield from found
