"""Compensation of parts that are taken away: the last matrices of what is left, refitted in closed form to the original's hidden states.

Block by block, where heads, channels, the attention or the blocks behind were taken away, the output projection and the down projection get the
change that brings the hidden states nearest to the original's, in least squares over calibration text, as channel pruning does for convolutions (He,
Zhang & Sun, ICCV 2017):

    ΔW = argmin Σ_t ‖r_t − ΔW h_t‖² + λ ‖ΔW‖² = (Σ_t r_t h_tᵀ) (Σ_t h_t h_tᵀ + λ I)⁻¹,   λ = ridge · mean h²

h are the inputs of the columns that are kept, and r is what the original's hidden states are ahead of those of the changed model, whose earlier
blocks are narrowed, quantized and refitted: it makes good what rounding did before it too. Differences from the source: inputs and errors are those
of the changed model; the penalty holds the matrix at its old weights; and it is rounded to its format afterwards, before the next block. At run time
it costs nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import Floats, Model, NarrowedWeights, Weights, applied, last_matrices, narrowed_weights, whole_structure
from bitwright.objectives import Tap, Tapped, Tokens, Use, decoder_blocks
from bitwright.pipeline.finishing.block_stream import Stream, input_stream
from bitwright.progress import Progress
from bitwright.spaces import Structure, Tensor, expert_of

RIDGE = 512.0  # tokens (docs/structure.md)
_OUTPUT, _DOWN = "attn_output", "ffn_down"
#: function from the weights of a matrix to those that its format stores
Rounding = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Refit:
    """Matrix that is refitted, with the first `n_columns` columns that are kept of it. `within` says that parts of its block come behind it."""

    tensor: Tensor
    n_columns: int
    within: bool


def refits(model: Model, kept: Structure) -> dict[int, list[Refit]]:
    """Return the matrices that are refitted, by block: the output projection where heads are gone, and the down projection where anything is; that of
    experts is not.
    """
    whole, last, found = whole_structure(model.source), last_matrices(model.tensors), dict[int, list[Refit]]()
    for group in _groups(kept):
        layer = group[0]
        shares = kept.head_groups[layer] / whole.head_groups[layer], kept.channels[layer] / whole.channels[layer]
        lost = shares[0] < 1, min(shares) < 1 or len(group) > 1
        parts = [(last[layer, role][0], share, role == _OUTPUT) for role, share in zip((_OUTPUT, _DOWN), shares, strict=True)]
        found[layer] = [
            Refit(tensor, round(share * tensor.shape[-1]), within)
            for (tensor, share, within), of in zip(parts, lost, strict=True)
            if of and share and len(tensor.shape) == 2
        ]
    return found


def compensated(
    model: Model, weights: Weights, kept: Structure, tokens: Tokens, *, rounded: Mapping[str, Rounding], progress: Progress, ridge: float = RIDGE
) -> dict[str, Floats]:
    """Return the refitted matrices `(n_rows, n_columns)` by name, before rounding, of a model with the narrowed `weights` of the structure `kept`.

    `rounded` has the roundings of matrices by name; one that it lacks is not refitted. Columns that are not kept are those of the original. The model
    must have its original weights. Memory beyond it: four times the tokens' hidden states, a block, and the moments of a matrix.
    """
    found, blocks, plain, wanted_of = dict[str, Floats](), decoder_blocks(model), narrowed_weights(model, {}, kept), refits(model, kept)
    original = input_stream(model, tokens)
    with applied(model, _of_layer(weights, -1)):
        changed = input_stream(model, tokens)
    with progress.stage("Compensating what was taken away", len(blocks)) as advance:
        for group in _groups(kept):
            layer, block = group[0], blocks[group[0]]
            attended = _advanced(model, original, blocks, group)
            here = dict(_of_layer(weights, layer))
            for refit in (refit for refit in wanted_of[layer] if refit.tensor.name in rounded):
                name = refit.tensor.name
                before = {**{other: given for other, given in here.items() if other != name}, **({name: plain[name]} if name in plain else {})}
                with applied(model, before):
                    change = _change(model, block, layer, changed, refit=refit, wanted=attended if refit.within else original.x, ridge=ridge)
                found[name] = model.source.read(refit.tensor).copy()
                found[name][:, : refit.n_columns] += change.float().cpu().numpy()
                here[name] = NarrowedWeights(_Rounded(found[name], rounded[name]), refit.n_columns)
            if layer not in kept.gone:
                with applied(model, here):
                    changed.advance(block, layer)
            advance(len(group))
    return found


def least_squares(products: Torch, missing: Torch, *, penalty: float) -> Torch:
    """Return the change `(n_rows, n_columns)` with the least squared error, from Σ h hᵀ `(n_columns, n_columns)` and Σ r hᵀ `(n_rows, n_columns)`."""
    held = products + penalty * torch.eye(len(products), dtype=products.dtype, device=products.device)
    change: Torch = torch.linalg.solve(held, missing.T).T
    return change


@dataclass(frozen=True, eq=False)
class _Rounded:
    """Weights of a matrix as its format has them."""

    weights: Floats
    rounding: Rounding

    def __call__(self) -> Floats:
        return self.rounding(self.weights)


class _LastUse(Tap):
    """Input and output of the last product with a tensor."""

    def __init__(self, tensor: str) -> None:
        self._tensor = tensor
        self.x, self.y = torch.empty(0), torch.empty(0)

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Note the product, if it is with the tensor."""
        if any(use.tensor == self._tensor for use in uses):
            self.x, self.y = x, y

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore a look-up."""


def _groups(structure: Structure) -> Iterator[list[int]]:
    """Yield each block that is kept with those behind it that are gone, and before these the blocks that are gone before the first, together."""
    group = list[int]()
    for layer in range(structure.n_layers):
        if group and layer not in structure.gone:
            yield group
            group = []
        group.append(layer)
    yield group


def _advanced(model: Model, original: Stream, blocks: list[Module], group: list[int]) -> list[Torch]:
    """Advance the original's stream through a group of blocks, and return its hidden states behind the first one's attention."""
    layer, attended, passed = group[0], list[Torch](), list[Torch]()
    tap = _LastUse(last_matrices(model.tensors)[layer, _OUTPUT][0].name)
    with Tapped(model, tap):
        for x, y in zip(original.x, original.outputs(blocks[layer], layer), strict=True):
            attended.append(x + tap.y)
            passed.append(y)
    original.x[:] = passed
    for behind in group[1:]:
        original.advance(blocks[behind], behind)
    return attended


def _change(model: Model, block: Module, layer: int, stream: Stream, *, refit: Refit, wanted: list[Torch], ridge: float) -> Torch:
    """Return the change of the columns of a matrix that are kept `(n_rows, n_kept)`."""
    tap, n_tokens = _LastUse(refit.tensor.name), 0
    products, missing = (torch.zeros((n, refit.n_columns), dtype=torch.float64) for n in (refit.n_columns, refit.tensor.shape[0]))
    with Tapped(model, tap):
        for x, y, want in zip(stream.x, stream.outputs(block, layer), wanted, strict=True):
            behind = want - (x + tap.y if refit.within else y)
            h = tap.x.flatten(0, -2)[:, : refit.n_columns].double().cpu()
            products += h.T @ h
            missing += behind.flatten(0, -2).double().cpu().T @ h
            n_tokens += len(h)
    return least_squares(products, missing, penalty=ridge * float(products.diagonal().mean()) / n_tokens)


def _of_layer(weights: Weights, layer: int) -> Weights:
    return {name: matrix for name, matrix in weights.items() if expert_of(name)[0] == layer}
