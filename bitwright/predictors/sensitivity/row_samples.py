"""Draw the rows of a model's tensors by which its formats are priced.

The number of rows follows from the error wanted. The product of a row is roughly normal over sequences and rows, so the relative variance of its
square is about 2, and a mean over n of N rows without replacement has the relative variance 2 (1/n − 1/N). Rows of the embedding that the text looks
up carry nearly all of its products, and there are few of them: all are taken.
"""

from collections.abc import Callable, Iterable
from math import ceil

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model, PackedTensors, RowSample, drawn_rows, matrix_shape
from bitwright.objectives import Tokens
from bitwright.spaces import Tensor

#: groups that the rows of a tensor are dealt into
N_GROUPS = 8
_RELATIVE_VARIANCE = 2.0


def rows_wanted(tensor: Tensor, error: float) -> int:
    """Return the number of rows of a tensor whose prices have the relative standard error `error` from the sample."""
    return ceil(1 / (error**2 / _RELATIVE_VARIANCE + 1 / matrix_shape(tensor)[0]))


def row_sample(
    model: Model, levels: PackedTensors, tokens: Tokens, tensors: Iterable[Tensor], *, n_rows: Callable[[Tensor], int], seed: int
) -> RowSample:
    """Return a sample of `n_rows` of each of `tensors`, beside the rows of the embedding that `tokens` look up. The seed draws the rows."""
    certain = looked_up(model, tokens)
    drawn = {tensor.name: drawn_rows(tensor, n_rows(tensor), n_groups=N_GROUPS, seed=seed, certain=certain.get(tensor.name)) for tensor in tensors}
    return RowSample(levels, drawn, N_GROUPS)


def looked_up(model: Model, tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """Return the rows of the embedding that `tokens` look up, by tensor."""
    ids, table = np.unique(tokens.ids), model.module.get_input_embeddings().get_parameter("weight")
    found: dict[str, NDArray[np.int64]] = {}
    for name, pieces in model.pieces.items():
        first = 0
        for piece in pieces:
            if model.module.get_parameter(piece.parameter) is table:
                rows = first + np.flatnonzero(np.isin(piece.order(), ids))
                found[name] = np.concatenate([found.get(name, np.zeros(0, dtype=np.int64)), rows])
            first += piece.n_rows
    return found
