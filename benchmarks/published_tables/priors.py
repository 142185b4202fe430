"""Prior of the sensitivities of a model's tensors, as the package has it (`--sensitivity prior`), learned on other published models."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.published_tables.tables import Published
from bitwright.predictors.sensitivity.names.prior import family_of, places_of
from bitwright.predictors.sensitivity.names.published_models import Family, Place, PublishedModel, expected, smoothed
from bitwright.spaces import Tensor, Unit, discover


def learned(model: Published) -> PublishedModel:
    """Return what the package keeps of a published model."""
    return smoothed(model.name, _family(model), _measured_places(model), list(model.singles.values()))


def prior(models: tuple[Published, ...], model: int, without: Sequence[int], *, of: tuple[PublishedModel, ...]) -> NDArray[np.float64]:
    """Return the prior log sensitivities of the measured tensors `(n_tensors,)` of `model` from those learned `of` all others but those `without`."""
    others = [published for i, published in enumerate(of) if i != model and i not in without]
    return expected(others, _family(models[model]), _measured_places(models[model]))


def without_kinship(model: PublishedModel, like: PublishedModel) -> PublishedModel:
    """Return a model as if it were of the family of another."""
    return replace(model, family=like.family)


def by_size(model: Published) -> NDArray[np.float64]:
    """Return the logarithms of the numbers of weights of the measured tensors `(n_tensors,)`: larger is dearer."""
    return np.array([np.log(np.prod(model.shapes[name], dtype=np.float64)) for name in model.singles])


def _matrices(model: Published) -> tuple[Unit, ...]:
    return discover(Tensor(name, shape, "BF16") for name, shape in model.shapes.items())


def _family(model: Published) -> Family:
    return family_of(_matrices(model))


def _measured_places(model: Published) -> list[Place]:
    """Return the places of the measured tensors; one that the package quantizes in no model stands at a place of its own."""
    places = places_of(_matrices(model))
    return [places.get(name, Place(name, 0.0)) for name in model.singles]
