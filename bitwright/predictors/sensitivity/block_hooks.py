"""Forward passes over a subject's text, and hooks on the inputs and outputs of its decoder blocks.

The hook is torch's global one on every module of the process, so nothing is written onto the model; it is removed when the `with` block ends. The
`hidden_states` of transformers would not do: the last of them comes after the final norm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook

from bitwright.compress import Model
from bitwright.objectives import Tokens, decoder_blocks
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.progress import Progress

SEQUENCES_AT_ONCE = 8
BOUND_BYTES = 2 << 30  # of the sums collected in one pass


@dataclass(frozen=True, eq=False)
class Call:
    """Call of the decoder block `index`: hidden states `x` in and `y` out, each `(n_sequences, length, width)`, and its other keyword arguments
    `given`.
    """

    index: int
    x: Torch
    y: Torch
    given: dict[str, Any]


def forward(subject: Subject, title: str) -> Iterator[tuple[NDArray[np.int64], Torch]]:
    """Run one forward pass over the tokens; yield each batch of ids `(n_sequences, length)` and its logits `(n_sequences, length, n_vocabulary)`."""
    yield from _forward(subject.model, subject.tokens, title, subject.progress)


def _forward(model: Model, tokens: Tokens, title: str, progress: Progress) -> Iterator[tuple[NDArray[np.int64], Torch]]:
    with progress.stage(title, tokens.n_tokens) as advance:
        for ids in tokens.batches(SEQUENCES_AT_ONCE):
            with torch.inference_mode():
                logits = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits
            yield ids, logits
            advance(ids.size)


def run_subject(subject: Subject, title: str) -> None:
    """Run one forward pass over the subject's tokens for the hooks that are active."""
    run_text(subject.model, subject.tokens, title, progress=subject.progress)


def run_text(model: Model, tokens: Tokens, title: str, *, progress: Progress) -> None:
    """Run one forward pass over any `tokens` for the hooks that are active."""
    for _ in _forward(model, tokens, title, progress):
        pass


@contextmanager
def hook_blocks(model: Model, callback: Callable[[Call], None]) -> Iterator[None]:
    """Call `callback` with every call of a decoder block inside the `with` block."""
    index = {block: i for i, block in enumerate(decoder_blocks(model))}

    def hook(module: Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if module in index:
            callback(Call(index[module], given[0], output, named))

    handle = register_module_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def portions(sizes_bytes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of consecutive items whose sizes sum up to at most `BOUND_BYTES`, at least one item each time."""
    portion: list[int] = []
    for i, size in enumerate(sizes_bytes):
        if portion and sum(sizes_bytes[j] for j in portion) + size > BOUND_BYTES:
            yield portion
            portion = []
        portion.append(i)
    if portion:
        yield portion
