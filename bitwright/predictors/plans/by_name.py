"""Predictors of whole plans by name. To add one, write its file and add one line here."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.plugins import Parts
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


@dataclass(frozen=True, eq=False)
class NamedPredictor:
    """Predictor by its name, made from a space, its table `(n_units, n_formats)` and a seed."""

    name: str
    make: Callable[[Space, Table, int], Predictor]


_BUILT_IN = (
    NamedPredictor("additive", lambda _, table, __: AdditivePredictor(table)),
    NamedPredictor("isotonic", lambda _, table, __: IsotonicPredictor(table)),
    NamedPredictor("ridge", lambda _, table, __: RidgePredictor(table)),
    NamedPredictor("pairwise", lambda space, table, _: PairwisePredictor(table, following(len(space.units)))),
    NamedPredictor("rbf", lambda space, _, __: RadialBasisPredictor(space.offered)),
    NamedPredictor("mlp", lambda space, _, seed: PerceptronPredictor(space.offered, seed)),
    NamedPredictor("gp-bits", lambda space, _, __: BitsProcessPredictor(space)),
    NamedPredictor("gp", lambda _, table, __: GaussianProcessPredictor(table)),
)
PREDICTORS = {predictor.name: predictor for predictor in _BUILT_IN}
#: the same with those of other packages
PREDICTOR_PARTS = Parts("A predictor must be a known one", "bitwright.predictors", (NamedPredictor,), PREDICTORS)


def predictor_named(name: str | NamedPredictor, space: Space, table: Table, *, seed: int) -> Predictor:
    """Return the predictor of that name for a space and its `table` `(n_units, n_formats)`.

    Raises:
        UserError: there is no predictor of that name.
        LibraryError: it needs a package that is not installed, or another package declares it, and it cannot be loaded.
    """
    return PREDICTOR_PARTS.named(PREDICTOR_PARTS.name_of(name)).make(space, table, seed)
