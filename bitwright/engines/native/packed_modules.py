"""Modules whose weights stay packed in memory and are dequantized when used, a part of a matrix or an expert at a time.

Each has one tensor, `weight`, as stored on disk: the bytes of the rows one after another `(n_bytes,)`, or floats `(n_rows, n_columns)` in their
stored type. A loader that does not know the format finds a vector where it expects a matrix, and fails.
"""

from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor as Torch
from torch import nn
from torch.nn.functional import linear

from bitwright.compress import expanded, stored_type
from bitwright.spaces import Format, IntegerFormat

# Weights dequantized at once. On a CPU they should fit in its caches; on other devices fewer, larger steps are faster.
_EXPANDED_ON_CPU, _EXPANDED_ELSEWHERE = 1 << 20, 1 << 25


class PackedMatrix(nn.Module):
    """Packed matrix of `shape` `(n_rows, n_columns)` in the format `form`."""

    def __init__(self, form: Format, shape: tuple[int, int]) -> None:
        super().__init__()
        self.form, self.shape = form, shape
        stored = (form.size_bytes(shape),) if isinstance(form, IntegerFormat) else shape
        self.weight = nn.Parameter(torch.empty(stored, dtype=stored_type(form)), requires_grad=False)

    def rows(self, wanted: slice | Torch) -> Torch:
        """Dequantize some rows of the matrix, `(n_wanted, n_columns)`: float32, or the stored float type."""
        return expanded(self.weight.view(self.shape[0], -1)[wanted], self.form, self.shape[1])

    def parts(self) -> Iterator[slice]:
        """Yield ranges of rows that are dequantized at once."""
        at_once = _EXPANDED_ON_CPU if self.weight.device.type == "cpu" else _EXPANDED_ELSEWHERE
        step = max(1, at_once // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield slice(start, min(start + step, self.shape[0]))

    def extra_repr(self) -> str:
        """Return the description of the layer that `print` shows."""
        return f"{self.shape[0]}×{self.shape[1]}, {self.form.name}"


class PackedLinear(PackedMatrix):
    """Packed linear layer: `x @ weight.T + bias`, in the type of `x`. `bias` is `(n_rows,)`, or None as in `torch.nn.Linear`."""

    def __init__(self, form: Format, shape: tuple[int, int], bias: nn.Parameter | None) -> None:
        super().__init__(form, shape)
        self.bias = bias

    def forward(self, x: Torch) -> Torch:
        """Map `(..., n_columns)` to `(..., n_rows)`."""
        parts = [linear(x, self.rows(part).to(x.dtype)) for part in self.parts()]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class PackedEmbedding(PackedMatrix):
    """Packed embedding: the rows of tokens, times `scale`, as floats of `dtype`."""

    def __init__(self, form: Format, shape: tuple[int, int], *, scale: float, dtype: torch.dtype) -> None:
        super().__init__(form, shape)
        self.scale, self.dtype = scale, dtype

    def forward(self, ids: Torch) -> Torch:
        """Look up token ids `(...)`: `(..., n_columns)`; only the rows asked for are dequantized."""
        rows = self.rows(ids.reshape(-1)).to(self.dtype).view(*ids.shape, self.shape[1])
        return rows if self.scale == 1 else rows * torch.tensor(self.scale, dtype=self.dtype, device=rows.device)


class PackedExpert(nn.Module):
    """Gated expert, or another gated feed-forward block, of three packed matrices with a format each."""

    def __init__(self, matrices: Mapping[str, PackedLinear], activation: nn.Module) -> None:
        """Take `gate_proj`, `up_proj` and `down_proj`."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj, self.act_fn = matrices["gate_proj"], matrices["up_proj"], matrices["down_proj"], activation

    def forward(self, x: Torch) -> Torch:
        """Map `(n_tokens, n_columns)` to the same shape."""
        y: Torch = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return y


class PackedParts(nn.Module):
    """Gated feed-forward block as the sum of parts of its channels, some of which may be pruned. Each is dequantized when it is used."""

    def __init__(self, parts: Mapping[str, PackedExpert]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Torch) -> Torch:
        """Map `(..., n_columns)` to the same shape."""
        total = torch.zeros_like(x)
        for part in self.children():
            total = total + part(x)
        return total


class PackedExperts(nn.Module):
    """Experts of a block by index, in place of transformers' two 3-D parameters. Each is dequantized when a token needs it."""

    def __init__(self, experts: Mapping[int, PackedExpert | PackedParts]) -> None:
        super().__init__()
        for index, expert in experts.items():
            self.add_module(str(index), expert)

    def forward(self, hidden_states: Torch, top_k_index: Torch, top_k_weights: Torch) -> Torch:
        """Apply to `(n_tokens, n_columns)` the experts `(n_tokens, k)` of each token, weighted by `(n_tokens, k)`."""
        total = torch.zeros_like(hidden_states)
        for index in sorted(set(top_k_index.reshape(-1).tolist())):
            token, place = torch.where(top_k_index == index)
            weighted = self.get_submodule(str(index))(hidden_states[token]) * top_k_weights[token, place, None]
            total.index_add_(0, token, weighted.to(total.dtype))
        return total


def footprint_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of a module, shared ones counted once."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.element_size() * prod(tensor.shape) for tensor in {id(tensor): tensor for tensor in tensors}.values())
