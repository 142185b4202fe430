"""Decoder blocks of a model, found by the matrices that they hold, so that no module needs a name."""

from itertools import takewhile

from torch.nn import Module

from bitwright.compress import Model
from bitwright.spaces import discover


def decoder_blocks(model: Model) -> list[Module]:
    """Return the decoder blocks in order: for each layer, the innermost module that holds all of its matrices."""
    paths: dict[int, list[list[str]]] = {}
    for unit in discover(model.tensors):
        if unit.layer >= 0:
            paths.setdefault(unit.layer, []).extend(piece.parameter.split(".") for tensor in unit.tensors for piece in model.pieces[tensor.name])
    return [model.module.get_submodule(_common(paths[layer])) for layer in sorted(paths)]


def _common(paths: list[list[str]]) -> str:
    """Return the longest common prefix of `paths`, dotted."""
    return ".".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))
