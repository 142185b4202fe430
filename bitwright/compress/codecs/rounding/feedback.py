"""Error feedback: columns are settled one after another, and the error of each is compensated by the columns after it.

With T, the upper Cholesky factor of the inverse of the second moments (`factor`), as GPTQ and SparseGPT have it (Frantar et al., ICLR 2023 and ICML
2023):

    e      = (w_i − q_i) / T_ii
    w_{i:} = w_{i:} − e · T_{i,i:}          (GPTQ, equations 2 and 4; at once within a block of columns, for all later ones when the block is done)
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from bitwright.compress.models.source import Floats

Positions = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)


class Feedback:
    """Weights `w` `(n_rows, n_columns)` while their columns are settled, and the factor T `(n_columns, n_columns)`, both in the order of settling."""

    def __init__(self, weights: Floats, t: Floats) -> None:
        self.w, self.t = weights.astype(np.float32), t
        self._start = self._stop = 0
        self._errors = np.zeros((len(weights), 0), dtype=np.float32)

    def run(self, settle: Callable[[int], Floats], block: int) -> None:
        """Settle every column at the value `(n_rows,)` that `settle` returns for its position, with lazy updates after every `block` of them."""
        n_columns = len(self.t)
        for start in range(0, n_columns, block):
            self._start, self._stop = start, min(start + block, n_columns)
            self._errors = np.zeros((len(self.w), self._stop - start), dtype=np.float32)
            for i in range(start, self._stop):
                error = (self.w[:, i] - settle(i)) / self.t[i, i]
                self._errors[:, i - start] = error
                self.w[:, i : self._stop] -= error[:, None] * self.t[i, i : self._stop]  # equation 2, within the block
            self.w[:, self._stop :] -= self._errors @ self.t[start : self._stop, self._stop :]  # equation 4, lazily for the rest

    def current(self, columns: Positions) -> Floats:
        """Return the weights `(n_rows, n)` at some positions; those beyond the block still lack its errors in `w`, and get them here."""
        late = columns >= self._stop
        found: Floats = self.w[:, columns]
        found[:, late] -= self._errors @ self.t[self._start : self._stop, columns[late]]
        return found


def factor(moments: NDArray[np.float64], damping: float) -> Floats:
    """Return T `(n_columns, n_columns)`, upper triangular with Tᵀ T = (H + λ I)⁻¹; the identity if all moments are zero."""
    # without the inverse of H: it is the inverse of a triangle
    return np.asarray(dtrtri(square_root(moments, damping), lower=0)[0], dtype=np.float32)


def square_root(moments: NDArray[Real], damping: float) -> NDArray[Real]:
    """Return U `(n_columns, n_columns)`, upper triangular with U Uᵀ = H + λ I up to a factor; the identity if all moments are zero.

    Raises:
        LinAlgError: H + λ I is not positive definite within the precision of its type.
    """
    mean = moments.diagonal().mean(dtype=np.float64)
    if mean <= 0:
        return np.eye(len(moments), dtype=moments.dtype)
    damped = moments * moments.dtype.type(2 / mean)  # only ratios matter
    unseen = damped.diagonal() <= 0
    damped[unseen, unseen] = 2.0
    damped[np.diag_indices(len(damped))] += 2 * damping
    # upper triangular: the Cholesky factor with rows and columns in reverse
    reverse = np.ascontiguousarray(damped[::-1, ::-1]).T  # symmetric, and in the order of Fortran nothing is copied
    return np.ascontiguousarray(cholesky(reverse, lower=True, overwrite_a=True, check_finite=False)[::-1, ::-1])
