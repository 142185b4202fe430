"""Modules whose weights stay packed in memory and are dequantized when used, a part of a matrix or an expert at a time.

Each has one tensor, `weight`, as stored on disk: the bytes of the rows one after another `(n_bytes,)`, or floats `(n_rows, n_columns)` in their
stored type. A loader that does not know the format finds a vector where it expects a matrix, and fails.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor as Torch
from torch import nn

from bitwright.compress import dequantized_per_row, expanded_rows, multiplied, stored_type
from bitwright.spaces import Format

# Numbers dequantized at once. On a CPU they should fit in its caches; on other devices fewer, larger steps are faster.
_EXPANDED_ON_CPU, _EXPANDED_ELSEWHERE = 1 << 20, 1 << 25


class PackedMatrix(nn.Module):
    """Packed matrix of `shape` `(n_rows, n_columns)` in the format `form`."""

    def __init__(self, form: Format, shape: tuple[int, int]) -> None:
        super().__init__()
        self.form, self.shape = form, shape
        dtype = stored_type(form)
        stored = (form.size_bytes(shape),) if dtype == torch.uint8 else shape
        self.weight = nn.Parameter(torch.empty(stored, dtype=dtype), requires_grad=False)

    @property
    def stored(self) -> nn.Parameter:
        """Tensor as it is stored on disk."""
        found: nn.Parameter = vars(self)["_parameters"]["weight"]
        return found

    def rows(self, wanted: slice | Torch) -> Torch:
        """Dequantize some rows of the matrix, `(n_wanted, n_columns)`: float32, or the stored float type."""
        return expanded_rows(self.stored, self.form, self.shape, wanted)

    def times(self, x: Torch) -> Torch:
        """Return the products `(..., n_rows)` of inputs `(..., n_columns)` and the rows, in the type of `x`."""
        parts = [multiplied(x, self.stored, self.form, self.shape, part) for part in self.parts()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def parts(self) -> Iterator[slice]:
        """Yield ranges of rows that are dequantized at once."""
        at_once = _EXPANDED_ON_CPU if self.stored.device.type == "cpu" else _EXPANDED_ELSEWHERE
        step = max(1, at_once // dequantized_per_row(self.form, self.shape[1]))
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
        y = self.times(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class WidenedLinear(PackedLinear):
    """Linear layer stored in a narrower float type than the model computes in; code that reads its `weight` without calling it, as the mixer of Mamba
    does, gets it in the type `dtype`. Where the class of the `layer` computes something else than a product, so does this one.
    """

    def __init__(self, form: Format, layer: nn.Linear, *, dtype: torch.dtype) -> None:
        super().__init__(form, (layer.out_features, layer.in_features), layer.bias)
        self.dtype = dtype
        self._computes = () if type(layer).forward is nn.Linear.forward else (layer,)  # no module of this one

    def forward(self, x: Torch) -> Torch:
        """Compute what the layer does, `(..., n_rows)` of `(..., n_columns)` for a plain one."""
        for layer in self._computes:
            own: dict[str, Torch] = {"weight": self.weight}
            if self.bias is not None:
                own["bias"] = self.bias
            computed: Torch = torch.func.functional_call(layer, own, (x,))
            return computed
        return super().forward(x)

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]  # read only, so that it is wide whoever reads it
        """Weights `(n_rows, n_columns)` in the type of the model, a copy; a parameter, as loaders require."""
        if "weight" not in vars(self)["_parameters"]:  # asked for before there is one
            raise AttributeError("weight")
        return nn.Parameter(self.stored.to(self.dtype), requires_grad=False)


class PackedEmbedding(PackedMatrix):
    """Packed embedding: the rows of tokens, times `scale`, as floats of `dtype`."""

    def __init__(self, form: Format, shape: tuple[int, int], *, scale: float, dtype: torch.dtype) -> None:
        super().__init__(form, shape)
        self.scale, self.dtype = scale, dtype

    def forward(self, ids: Torch) -> Torch:
        """Look up token ids `(...)`: `(..., n_columns)`; only the rows asked for are dequantized."""
        rows = self.rows(ids.reshape(-1)).to(self.dtype).view(*ids.shape, self.shape[1])
        return rows if self.scale == 1 else rows * torch.tensor(self.scale, dtype=self.dtype, device=rows.device)


@dataclass(frozen=True, eq=False)
class Block:
    """Packed part of a larger matrix: its rows and columns there, each (first, past the last)."""

    matrix: PackedMatrix
    rows: tuple[int, int]
    columns: tuple[int, int]


class AssembledLinear(nn.Module):
    """Linear layer whose matrix `(n_rows, n_columns)` lies in blocks, each in a format of its own and dequantized when it is used. Where none
    lies, it is zero. The blocks are modules elsewhere.
    """

    def __init__(self, blocks: Sequence[Block], shape: tuple[int, int], bias: nn.Parameter | None) -> None:
        super().__init__()
        self.blocks, self.shape, self.bias = tuple(blocks), shape, bias

    def forward(self, x: Torch) -> Torch:
        """Map `(..., n_columns)` to `(..., n_rows)`."""
        y = x.new_zeros(*x.shape[:-1], self.shape[0])
        for block in self.blocks:
            y[..., slice(*block.rows)] += block.matrix.times(x[..., slice(*block.columns)])
        return y if self.bias is None else y + self.bias.to(y.dtype)


class PackedStack(nn.Module):
    """Stack of experts' matrices in place of a 3-D parameter: `stack[3]` is dequantized when it is asked for, in the type `dtype`.

    `experts` are the blocks of each expert's matrix `(n_rows, n_columns)`, none for one that is dropped; the blocks are modules elsewhere. If
    `transposed`, the module multiplies by the matrices from the right. A function of torch that takes the whole stack gets it dequantized whole.
    """

    def __init__(self, experts: Sequence[Sequence[Block]], shape: tuple[int, int], *, transposed: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.experts, self.matrix_shape, self.transposed, self.dtype = tuple(tuple(blocks) for blocks in experts), shape, transposed, dtype

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the parameter that the stack stands for."""
        n_rows, n_columns = self.matrix_shape
        return (len(self.experts), n_columns, n_rows) if self.transposed else (len(self.experts), n_rows, n_columns)

    def __getitem__(self, expert: Any) -> Torch:
        """Return the matrix of an expert, or those of several as a stack."""
        if isinstance(expert, slice):
            return torch.stack([self._matrix(i) for i in range(len(self.experts))[expert]])
        if isinstance(expert, Torch) and expert.dim():
            matrices = torch.stack([self._matrix(i) for i in expert.reshape(-1).tolist()])
            return matrices.reshape(*expert.shape, *matrices.shape[1:])
        return self._matrix(int(expert))

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch with the whole stack."""
        return func(*(arg[:] if isinstance(arg, PackedStack) else arg for arg in args), **(kwargs or {}))

    def _matrix(self, expert: int) -> Torch:
        blocks = self.experts[expert]
        device = blocks[0].matrix.stored.device if blocks else next((b.matrix.stored.device for of in self.experts for b in of), torch.device("cpu"))
        found = torch.zeros(self.matrix_shape, dtype=self.dtype, device=device)
        for block in blocks:
            found[slice(*block.rows), slice(*block.columns)] = block.matrix.rows(slice(None)).to(self.dtype)
        return found.mT if self.transposed else found


def footprint_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers that a module saves, shared ones counted once; a mask that it makes itself is none of them."""
    tensors = module.state_dict(keep_vars=True).values()
    return sum(tensor.element_size() * prod(tensor.shape) for tensor in {id(tensor): tensor for tensor in tensors}.values())
