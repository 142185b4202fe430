"""Forward passes over a subject's text, and what goes into and comes out of every decoder block in them.

A block is found as the module that holds all matrices of one layer, so no module is named. It is watched through torch's hook on every module of
the process, so nothing is written onto the model; the hook is gone when the `with` block ends. The outputs that transformers lists as
`hidden_states` would not do: the last of them has been through the final norm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook

from bitwright.compress import Model
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.progress import Progress
from bitwright.spaces import discover

SEQUENCES_AT_ONCE = 8
BOUND_BYTES = 2 << 30  # of what is summed up in one pass


@dataclass(frozen=True, eq=False)
class Call:
    """One run of the decoder block of that `index`: hidden states `x` in and `y` out, each `(n_sequences, length, width)`, and all else that it was
    `given`.
    """

    index: int
    x: Torch
    y: Torch
    given: dict[str, Any]


def forward(subject: Subject, title: str) -> Iterator[tuple[NDArray[np.int64], Torch]]:
    """One forward pass over the tokens: each batch of ids `(n_sequences, length)` and its logits `(n_sequences, length, n_vocabulary)`."""
    yield from _forward(subject.model, subject.tokens, title, subject.progress)


def _forward(model: Model, tokens: Tokens, title: str, progress: Progress) -> Iterator[tuple[NDArray[np.int64], Torch]]:
    with progress.stage(title, tokens.n_tokens) as advance:
        for ids in tokens.batches(SEQUENCES_AT_ONCE):
            with torch.inference_mode():
                logits = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits
            yield ids, logits
            advance(ids.size)


def read(subject: Subject, title: str) -> None:
    """One forward pass for the sake of who watches it."""
    read_text(subject.model, subject.tokens, title, progress=subject.progress)


def read_text(model: Model, tokens: Tokens, title: str, *, progress: Progress) -> None:
    """The same over the tokens of a text that is no subject's."""
    for _ in _forward(model, tokens, title, progress):
        pass


def decoder_blocks(model: Model) -> list[Module]:
    """The decoder blocks in order: for each, the innermost module that holds all of its matrices."""
    paths: dict[int, list[list[str]]] = {}
    for unit in discover(model.tensors):
        if unit.layer >= 0:
            paths.setdefault(unit.layer, []).extend(piece.parameter.split(".") for tensor in unit.tensors for piece in model.pieces[tensor.name])
    return [model.module.get_submodule(_common(paths[layer])) for layer in sorted(paths)]


@contextmanager
def watched(model: Model, told: Callable[[Call], None]) -> Iterator[None]:
    """Tell `told` of every run of a decoder block while the `with` block lasts."""
    index = {block: i for i, block in enumerate(decoder_blocks(model))}

    def hook(module: Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if module in index:
            told(Call(index[module], given[0], output, named))

    handle = register_module_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def portions(sizes_bytes: Sequence[int]) -> Iterator[list[int]]:
    """Indices of consecutive things whose sizes sum up to no more than `BOUND_BYTES`, one at the least."""
    portion: list[int] = []
    for i, size in enumerate(sizes_bytes):
        if portion and sum(sizes_bytes[j] for j in portion) + size > BOUND_BYTES:
            yield portion
            portion = []
        portion.append(i)
    if portion:
        yield portion


def _common(paths: list[list[str]]) -> str:
    """The longest path, dotted, with which all `paths` begin."""
    return ".".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))
