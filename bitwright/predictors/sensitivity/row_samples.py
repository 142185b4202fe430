"""Draw the rows of a model's tensors by which its formats are priced.

The number of rows follows from the error wanted. The product of a row is roughly normal over sequences and rows, so the relative variance of its
square is about 2, and a mean over n of N rows without replacement has the relative variance 2 (1/n − 1/N). Rows of the embedding that the text looks
up carry nearly all of its products, and there are few of them: all are taken. The output head, which may be the same matrix, has most of its products
in the few rows that are drawn as labels: of a matrix with a row for every token at least a quarter of the rows are drawn.
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
_SHARE_OF_VOCABULARY = 4  # one in so many rows


def rows_wanted(tensor: Tensor, error: float) -> int:
    """Return the number of rows of a tensor whose prices have the relative standard error `error` from the sample."""
    return ceil(1 / (error**2 / _RELATIVE_VARIANCE + 1 / matrix_shape(tensor)[0]))


def row_sample(
    model: Model, levels: PackedTensors, tokens: Tokens, tensors: Iterable[Tensor], *, n_rows: Callable[[Tensor], int], seed: int
) -> RowSample:
    """Return a sample of `n_rows` of each of `tensors`, beside the rows of the embedding that `tokens` look up; of the embedding and the output head
    at least a quarter. The seed draws the rows.
    """
    certain, of_tokens = looked_up(model, tokens), _with_rows_of_tokens(model)

    def n_drawn(tensor: Tensor) -> int:
        return max(n_rows(tensor), matrix_shape(tensor)[0] // _SHARE_OF_VOCABULARY * (tensor.name in of_tokens))

    drawn = {tensor.name: drawn_rows(tensor, n_drawn(tensor), n_groups=N_GROUPS, seed=seed, certain=certain.get(tensor.name)) for tensor in tensors}
    return RowSample(levels, drawn, N_GROUPS)


def _with_rows_of_tokens(model: Model) -> set[str]:
    """Return the tensors of the embedding and the output head."""
    head = model.module.get_output_embeddings()  # type: ignore[no-untyped-call]
    weights = [module.get_parameter("weight") for module in (model.module.get_input_embeddings(), head) if module is not None]
    return {
        name
        for name, pieces in model.pieces.items()
        if any(model.module.get_parameter(piece.parameter) is each for piece in pieces for each in weights)
    }


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
