"""Weights of tokens in the error of a layer's output.

An error matters in proportion to what it is added to: norms divide the residual stream by its root mean square, which for the first token of a text
and a few others is a hundred times that of the rest ("massive activations", Sun et al., COLM 2024), so that squared errors of all tokens alike are
those of these few. The weight of a token is one over the root mean square

    of the residual stream and the output together     where the output is added to it: `attn_output`, `ffn_down`
    of the output                                       of other matrices in the blocks

Routers, the output head and the down matrices of routed experts, which see some tokens and not which ones, take all tokens alike.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import Model
from bitwright.objectives.text.decoder_blocks import decoder_blocks

#: role of a tensor, the output `(..., n_rows)` of its layer -> weights of tokens `(n_tokens,)`, None where all count alike
TokenWeights = Callable[[str, Torch], Torch | None]

_ADDED = ("attn_output", "ffn_down", "ffn_down_shexp")
_ALIKE = ("ffn_down_exps", "ffn_gate_inp", "output", "token_embd")


@contextmanager
def token_weights(model: Model, *, weigh: bool = True) -> Iterator[TokenWeights]:
    """Watch the hidden states that enter blocks inside the `with` block, and yield the weights of the tokens of a layer that is running; with `weigh`
    False, all count alike.
    """
    entering = dict[str, Torch]()

    def enter(module: Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:  # noqa: ARG001
        entering.clear()  # none of another block or batch, should this one be called by keywords
        if given:
            entering["squares"] = _squares(given[0])

    def weights(role: str, y: Torch) -> Torch | None:
        if not weigh or not role or role in _ALIKE:
            return None
        squares = _squares(y)
        if role in _ADDED:
            if "squares" not in entering or len(entering["squares"]) != len(squares):
                return None
            squares = squares + entering["squares"]
        return (squares + squares.mean() * 1e-6).clamp(min=torch.finfo(torch.float32).tiny).rsqrt()

    with ExitStack() as hooks:
        for block in decoder_blocks(model) if weigh else ():
            hooks.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield weights


def _squares(x: Torch) -> Torch:
    """Return the mean square of each token `(n_tokens,)` of `x` `(..., n_columns)`."""
    return x.detach().reshape(-1, x.shape[-1]).float().square().mean(dim=1)
