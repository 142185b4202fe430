"""Draw the rows of a model's tensors by which its formats are priced.

The number of rows follows from the error wanted. The product of a row is roughly normal over sequences and rounding errors, so the relative variance
of its square about what is expected of it is about 2, and n of N rows that are drawn in proportion to that add at most the relative variance
2 (1/n − 1/N). Rows of the embedding that the text looks up carry all products of look-ups, and there are few of them: all are taken. The output head,
which may be the same matrix, has most of its products in the few rows that are drawn as labels: of it at least a quarter of the rows are drawn.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
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
    model: Model,
    levels: PackedTensors,
    tokens: Tokens,
    tensors: Iterable[Tensor],
    *,
    n_rows: Callable[[Tensor], int],
    seed: int,
    sizes: Mapping[str, NDArray[np.float64]] | None = None,
) -> RowSample:
    """Return a sample of `n_rows` of each of `tensors`, beside the rows of the embedding that `tokens` look up; of the output head at least a
    quarter. The seed draws the rows: with chances in proportion to `sizes`, numbers of each row by tensor, or with equal ones.
    """
    certain, of_head = looked_up(model, tokens), _of_head(model)

    def n_drawn(tensor: Tensor) -> int:
        return max(n_rows(tensor), matrix_shape(tensor)[0] // _SHARE_OF_VOCABULARY * (tensor.name in of_head))

    drawn = partial(drawn_rows, n_groups=N_GROUPS, seed=seed)
    by_name = [(tensor.name, tensor) for tensor in tensors]
    found = {name: drawn(tensor, n_drawn(tensor), certain=certain.get(name), sizes=(sizes or {}).get(name)) for name, tensor in by_name}
    return RowSample(levels, found, N_GROUPS)


def _of_head(model: Model) -> set[str]:
    """Return the tensors of the output head."""
    head = model.module.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight = None if head is None else head.get_parameter("weight")
    return {name for name, pieces in model.pieces.items() if any(model.module.get_parameter(piece.parameter) is weight for piece in pieces)}


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
