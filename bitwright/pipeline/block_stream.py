"""A text on its way through the blocks of a model, which are run one by one: memory beside the model is that of its hidden states.

So each block can be changed by what the changed blocks before it give, and the text goes through each a few times instead of through the whole model.
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
    """Each batch of the text on its way through the blocks: hidden states `x[batch]` `(n_sequences, length, width)`, and what else block `i` is given
    with it, `given[batch][i]`.
    """

    x: list[Torch]
    given: list[dict[int, dict[str, Any]]]

    def outputs(self, block: Module, layer: int) -> Iterator[Torch]:
        """What the block of that number makes of each batch; the stream stays where it is."""
        for x, given in zip(self.x, self.given, strict=True):
            with torch.no_grad():
                y: Torch = block(x, **given[layer])
            yield y

    def advance(self, block: Module, layer: int) -> None:
        """Send the text on through the block of that number, a batch in the place of the one before."""
        for i, y in enumerate(self.outputs(block, layer)):
            self.x[i] = y


def entering(model: Model, tokens: Tokens) -> Stream:
    """The text as it enters the first block, embedded by the weights that the model has now."""
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
