"""Products of the gradient at a layer's output with a change of the layer's weights.

With g_t the gradient of the loss at the output of token t, x_t the layer's input and ΔW the change of its weights, over one sequence:

    inner product            ⟨G, ΔW⟩ = Σ_t g_tᵀ ΔW x_t,  G = Σ_t g_t x_tᵀ     the change of the loss to first order, with its sign
    absolute product         Σ |G ⊙ ΔW|, over the weights                     AutoRound's delta loss
    squared output change    Σ_t Σ_c (g_tc · (ΔW x_t)_c)²                     ModelOpt's score, over tokens t and output channels c

None needs the whole gradient of a parameter in memory: G is computed a chunk of rows at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor as Torch

#: weight change of a chunk of rows `(n_rows, n_columns)` -> product of each sequence `(n_sequences,)`, or of each of its rows `(n_sequences, n_rows)`
OfChange = Callable[[Torch], Torch]


class Product(ABC):
    """Product of gradient and weight change, additive over the chunks of a tensor and over its uses."""

    name: str

    @abstractmethod
    def linear(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the product as a function of the weight change, for a layer's `inputs` `(n_sequences, length, n_columns)` and the gradients `slopes`
        `(n_sequences, length, n_rows)` at the rows of a chunk.
        """

    @abstractmethod
    def by_row(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the product of each row as a function of the weight change, for the same."""

    @abstractmethod
    def embedding(self, slopes: Torch, change: Torch) -> Torch:
        """Return the product of each token `(n_sequences, length)` for a look-up, from the gradients `slopes` at the rows looked up and their
        `change`, both `(n_sequences, length, n_columns)`.
        """


class InnerProduct(Product):
    """Inner product ⟨G, ΔW⟩."""

    name = "inner"

    def linear(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to ⟨g, ΔW⟩ `(n_sequences,)`."""
        gradient = torch.bmm(slopes.transpose(1, 2), inputs).flatten(1)  # (n_sequences, weights of the chunk)
        return lambda change: gradient @ change.reshape(-1)

    def by_row(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to ⟨g, ΔW⟩ of each row `(n_sequences, n_rows)`."""
        gradient = torch.bmm(slopes.transpose(1, 2), inputs)  # (n_sequences, n_rows, n_columns)
        return lambda change: torch.einsum("src,rc->sr", gradient, change)  # without the product of each weight in memory

    def embedding(self, slopes: Torch, change: Torch) -> Torch:
        """Return ⟨g, ΔW⟩ `(n_sequences, length)` of the rows looked up."""
        return (slopes * change).sum(dim=2)


class AbsoluteProduct(Product):
    """Absolute product Σ|G ⊙ ΔW|; for a look-up Σ|g ⊙ ΔW| over the tokens, an upper bound where a token occurs twice."""

    name = "absolute"

    def linear(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to Σ|g·ΔW| `(n_sequences,)`."""
        gradient = torch.bmm(slopes.transpose(1, 2), inputs).flatten(1).abs_()
        return lambda change: gradient @ change.reshape(-1).abs()

    def by_row(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to Σ|g·ΔW| of each row `(n_sequences, n_rows)`."""
        gradient = torch.bmm(slopes.transpose(1, 2), inputs)
        return lambda change: (gradient * change).abs_().sum(dim=2)

    def embedding(self, slopes: Torch, change: Torch) -> Torch:
        """Return Σ|g·ΔW| `(n_sequences, length)` of the rows looked up."""
        return (slopes * change).abs_().sum(dim=2)


class SquaredOutputChange(Product):
    """Squared output change Σ (g ⊙ ΔW x)² over tokens and output channels."""

    name = "squared output change"

    def linear(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to Σ(slope · Δoutput)² `(n_sequences,)`."""
        return lambda change: (inputs @ change.T).mul_(slopes).square_().flatten(1).sum(dim=1)

    def by_row(self, inputs: Torch, slopes: Torch) -> OfChange:
        """Return the function from a change `(n_rows, n_columns)` to Σ(slope · Δoutput)² of each row `(n_sequences, n_rows)`."""
        return lambda change: (inputs @ change.T).mul_(slopes).square_().sum(dim=1)

    def embedding(self, slopes: Torch, change: Torch) -> Torch:
        """Return Σ(slope · Δoutput)² `(n_sequences, length)` of the rows looked up."""
        return (slopes * change).square_().sum(dim=2)
