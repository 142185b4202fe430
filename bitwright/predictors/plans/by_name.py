"""Predictors of whole plans by name. To add one, write its file and add one line here."""

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.predictors.plans.additive import AdditivePredictor
from bitwright.predictors.plans.bits_process import BitsProcessPredictor
from bitwright.predictors.plans.gaussian_process import GaussianProcessPredictor
from bitwright.predictors.plans.isotonic import IsotonicPredictor
from bitwright.predictors.plans.pairwise import PairwisePredictor, following
from bitwright.predictors.plans.perceptron import PerceptronPredictor
from bitwright.predictors.plans.predictor import Predictor
from bitwright.predictors.plans.radial_basis import RadialBasisPredictor
from bitwright.predictors.plans.ridge import RidgePredictor
from bitwright.spaces import Space

Table = NDArray[np.float64]

#: name -> factory of the predictor from a space, its table `(n_units, n_formats)` and a seed
PREDICTORS: dict[str, Callable[[Space, Table, int], Predictor]] = {
    "additive": lambda _, table, __: AdditivePredictor(table),
    "isotonic": lambda _, table, __: IsotonicPredictor(table),
    "ridge": lambda _, table, __: RidgePredictor(table),
    "pairwise": lambda space, table, _: PairwisePredictor(table, following(len(space.units))),
    "rbf": lambda space, _, __: RadialBasisPredictor(space.offered),
    "mlp": lambda space, _, seed: PerceptronPredictor(space.offered, seed),
    "gp-bits": lambda space, _, __: BitsProcessPredictor(space),
    "gp": lambda _, table, __: GaussianProcessPredictor(table),
}


def predictor_named(name: str, space: Space, table: Table, *, seed: int) -> Predictor:
    """Return the predictor of that name for a space and its `table` `(n_units, n_formats)`.

    Raises:
        UserError: there is no predictor of that name.
        LibraryError: it needs a package that is not installed.
    """
    if name not in PREDICTORS:
        close = get_close_matches(name.lower(), PREDICTORS, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(PREDICTORS)}."
        raise UserError(f"A predictor must be a known one; '{name}' is not: {way_out}")
    return PREDICTORS[name](space, table, seed)
