"""Hidden states of a text, advanced through a model's decoder blocks one at a time.

Each block can be changed given the outputs of the already changed blocks before it, and the text passes each block a few times instead of the whole
model. Memory beyond the model is that of the hidden states.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import Model
from bitwright.objectives import Tokens
from bitwright.predictors import Call, hook_blocks

SEQUENCES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Stream:
    """Hidden states `x[batch]` `(n_sequences, length, width)` of each batch, and the keyword arguments of block `i`, `given[batch][i]`."""

    x: list[Torch]
    given: list[dict[int, dict[str, Any]]]

    def outputs(self, block: Module, layer: int) -> Iterator[Torch]:
        """Yield the output of block number `layer` for each batch, without advancing the stream."""
        for x, given in zip(self.x, self.given, strict=True):
            with torch.no_grad():
                y: Torch = block(x, **given[layer])
            yield y

    def advance(self, block: Module, layer: int) -> None:
        """Advance the stream through block number `layer`: replace each batch by the block's output."""
        for i, y in enumerate(self.outputs(block, layer)):
            self.x[i] = y


def input_stream(model: Model, tokens: Tokens) -> Stream:
    """Return the stream at the input of the first block, embedded with the model's current weights."""
    stream = Stream([], [])
    for ids in tokens.batches(SEQUENCES_AT_ONCE):
        stream.given.append({})

        def note(call: Call) -> None:
            stream.given[-1][call.index] = call.given
            if call.index == 0:
                stream.x.append(call.x)

        with torch.no_grad(), hook_blocks(model, note):
            model.module(torch.from_numpy(ids).to(model.device), use_cache=False)
    return stream
