"""Inputs for tests of measurements: random tokens, the space of a tiny model, its packed levels, and its changed weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bitwright.compress import GgmlCodec, Model, PackedTensors
from bitwright.engines import LLAMA_CPP
from bitwright.objectives import Tokens
from bitwright.spaces import Choice, Space, discover


def random_tokens(n_sequences: int, length: int, seed: int = 0) -> Tokens:
    """Sequences of ids that every tiny tokenizer has."""
    return Tokens(np.random.default_rng(seed).integers(3, 350, (n_sequences, length)), "random")


def space_of(model: Model, menu: Sequence[str]) -> Space:
    """Return the space of the model's matrices × the formats of `menu`, with nothing else in the file."""
    return LLAMA_CPP.space(discover(model.tensors), menu=menu, fixed_bytes=0, n_weights=sum(tensor.n_weights for tensor in model.tensors))


def levels_of(model: Model, folder: Path) -> PackedTensors:
    """Packed without an importance matrix."""
    return PackedTensors(folder, model.source, GgmlCodec(), {})


def uniform(space: Space, form: str) -> Choice:
    """Return the choice of `form` for every unit."""
    return space.uniform(LLAMA_CPP.format(form))


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    """Copy every parameter."""
    return {name: weight.detach().clone() for name, weight in model.module.named_parameters()}
