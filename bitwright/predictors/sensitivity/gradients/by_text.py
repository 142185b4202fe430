"""What each of several mixed texts would price formats at by itself, from the products that a sweep over the mixture kept sequence by sequence.

No pass is made: the products of the sequences of one text are what a sweep over that text alone gives (with other labels drawn, as the places of its
sequences differ). The errors that prices are drawn towards are those of the mixture's importance.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.gradient import gradient_products, gradient_table
from bitwright.predictors.sensitivity.gradients.joint_gradient import joined, joint_products
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.subject import Subject

Table = NDArray[np.float64]  # (n_units, n_formats)
Rows = Sequence[NDArray[np.int64]]


def _raw(subject: Subject, error: Table, texts: Rows) -> list[Table]:  # noqa: ARG001
    products = gradient_products(subject)
    return [gradient_table(products.only(rows)) for rows in texts]


def _shrunk(subject: Subject, error: Table, texts: Rows) -> list[Table]:
    products = gradient_products(subject)
    return [shrunk_table(products.only(rows), error) for rows in texts]


def _joint(subject: Subject, error: Table, texts: Rows) -> list[Table]:
    whole, diagonal = joint_products(subject)
    return [joined(whole.only(rows), diagonal.only(rows), error) for rows in texts]


#: the proxies of which something is kept by sequence
BY_SEQUENCE: dict[str, Callable[[Subject, Table, Rows], list[Table]]] = {"gradient": _shrunk, "gradient-raw": _raw, "joint": _joint}


def tables_by_text(name: str, subject: Subject, error: Table, texts: Rows) -> list[Table]:
    """The table `(n_units, n_formats)` of the proxy of that name for each of `texts`, the indices of its sequences; none where the proxy keeps
    nothing by sequence. `error` `(n_units, n_formats)` is what prices are drawn towards.
    """
    return BY_SEQUENCE[name](subject, error, texts) if name in BY_SEQUENCE else []
