"""Products of inputs and matrices in the native formats, in torch, on any device: what a packed linear layer computes.

Rows are dequantized and multiplied by, unless fewer steps give the same sums in another order:

    a pair of low rank      x (Q + L R)ᵀ = x Qᵀ + (x Rᵀ) Lᵀ; the product of the two narrow matrices is not needed
    n of m, one token       the inputs at the positions of the kept weights, times these; zeros are not filled in. No gradient of the inputs
"""

import torch
from torch import Tensor as Torch
from torch.nn.functional import linear

from bitwright.compress.codecs.expansion import expanded, expanded_rows, factor_of, kept_parts, rank_parts
from bitwright.compress.codecs.positions import kept_inputs
from bitwright.spaces import Format, NOfM, RankFormat, SparseFormat


def multiplied(x: Torch, stored: Torch, form: Format, shape: tuple[int, int], wanted: slice) -> Torch:
    """Return `x` `(..., n_columns)` times the rows `wanted` of a matrix as it is `stored`, see `expanded_rows`: `(..., n_wanted)` in its type."""
    if isinstance(form, RankFormat):
        return _through_pair(x, stored, form, shape, wanted)
    if isinstance(form, SparseFormat) and isinstance(form.pattern, NOfM) and x.numel() == shape[1] and not x.requires_grad:
        return _of_kept(x, stored.view(shape[0], -1)[wanted], form, form.pattern)
    return linear(x, expanded_rows(stored, form, shape, wanted).to(x.dtype))


def dequantized_per_row(form: Format, n_columns: int) -> int:
    """Return how many numbers `multiplied` dequantizes for a row."""
    return form.rank if isinstance(form, RankFormat) and form.base is None else n_columns


def _through_pair(x: Torch, stored: Torch, form: RankFormat, shape: tuple[int, int], wanted: slice) -> Torch:
    base, *factors = rank_parts(stored, form, shape, wanted)
    (left, of_rows), (right, of_columns) = map(factor_of, factors)
    product = linear(linear(x.float() * of_columns.T, right.T), left).mul_(of_rows.view(-1)).to(x.dtype)
    return product if form.base is None else linear(x, expanded(base, form.base, shape[1]).to(x.dtype)).add_(product)


def _of_kept(x: Torch, rows: Torch, form: SparseFormat, pattern: NOfM) -> Torch:
    """Return the products `(..., n_rows)` of the inputs of one token and sparse `rows`."""
    values, positions = kept_parts(rows, form, x.shape[-1])
    inputs = kept_inputs(x.reshape(-1).float(), positions, pattern)
    products: Torch = torch.linalg.vecdot(inputs, values)
    return products.to(x.dtype).view(*x.shape[:-1], -1)
