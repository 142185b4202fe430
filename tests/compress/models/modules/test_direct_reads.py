"""Weights that other code than their layer reads."""

from typing import Any

import torch
from torch import Tensor as Torch
from torch import nn

from bitwright.compress.models.modules.direct_reads import direct_reads, sentence_of


class Reader(nn.Module):
    """Calls one layer and reads the weight of another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.called, self.read = nn.Embedding(64, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, ids: Torch, use_cache: bool) -> Torch:
        return self.called(self.embed(ids)) @ self.read.weight


def test_a_weight_that_is_read_outside_its_layer_is_found() -> None:
    module: Any = Reader()
    found = direct_reads(module, ["called.weight", "read.weight", "embed.weight"])
    assert found == ("read.weight",)
    assert "1 layers stay floats, first read.weight" in sentence_of(found)
    assert torch.nn.modules.module._global_forward_hooks == {}


class Joiner(Reader):
    """Multiplies by the weights of two layers at once, as models that fuse q and k on the fly do."""

    def forward(self, ids: Torch, use_cache: bool) -> Torch:
        return nn.functional.linear(self.embed(ids), torch.cat([self.called.weight, self.read.weight]))


def test_weights_in_a_list_are_found() -> None:
    module: Any = Joiner()
    assert direct_reads(module, ["called.weight", "read.weight"]) == ("called.weight", "read.weight")


class Grouped(nn.Linear):
    """Multiplies each half of its input by a half of its weight."""

    def forward(self, x: Torch) -> Torch:
        return torch.stack([x[..., half, :] @ self.weight.view(2, 4, 8)[half].T for half in range(2)], dim=-2)


class Caller(Reader):
    """Calls a layer with two inputs at once for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.read = Grouped(8, 8)

    def forward(self, ids: Torch, use_cache: bool) -> Torch:
        x = self.called(self.embed(ids))
        return self.read(torch.stack([x, x], dim=-2))


def test_a_layer_that_returns_no_product_with_its_input_is_found() -> None:
    module: Any = Caller()
    assert direct_reads(module, ["called.weight", "read.weight"]) == ("read.weight",)
