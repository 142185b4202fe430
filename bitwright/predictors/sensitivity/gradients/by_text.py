"""Sensitivity tables of each text of a calibration mixture, from the products that a sweep over the mixture stored by sequence.

No pass is needed: the products of one text's sequences are those of a sweep over that text alone (but for the labels drawn, since the positions of
the sequences differ). Prices are shrunk towards the errors weighted by the mixture's importance matrix.
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


#: the proxies whose products are stored by sequence
BY_SEQUENCE: dict[str, Callable[[Subject, Table, Rows], list[Table]]] = {"gradient": _shrunk, "gradient-raw": _raw, "joint": _joint}


def tables_by_text(name: str, subject: Subject, error: Table, texts: Rows) -> list[Table]:
    """Return the table `(n_units, n_formats)` of the proxy `name` for each of `texts`, given as the indices of its sequences; empty for a proxy that
    stores nothing by sequence. Prices are shrunk towards `error` `(n_units, n_formats)`.
    """
    return BY_SEQUENCE[name](subject, error, texts) if name in BY_SEQUENCE else []
