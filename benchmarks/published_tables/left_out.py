"""Judge the predictors of whole models with each model left out in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from benchmarks.published_tables.kinship import kinship, siblings
from benchmarks.published_tables.links import Answer, Predictor, Question
from benchmarks.published_tables.tables import MAINLINE, Published, curve_types, of_its_own
from bitwright.errors import UserError

WITHIN = 1.5
_IN_90 = 1.645  # standard deviations

#: types among which a pair is chosen to be measured
CHOSEN_FROM = ("q6_K", "q5_K", "q4_K", "iq4_xs", "q3_K", "iq3_xxs", "q2_K", "iq2_xxs")


@dataclass(frozen=True, eq=False)
class Atlas:
    """Curves of all models `(n, n_types)`, logarithms of nats/token, and the kinship of the models `(n, n)`; whether pairs are `alike`."""

    models: tuple[Published, ...]
    types: tuple[str, ...]
    curves: NDArray[np.float64]
    kin: NDArray[np.float64]
    alike: NDArray[np.bool_]

    def indices(self, types: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the indices of `types`."""
        return np.array([self.types.index(form) for form in types], dtype=np.int64)

    def unknown_with(self, model: int) -> list[int]:
        """Return the siblings of a model, itself included."""
        return np.flatnonzero(self.alike[model]).tolist()


@dataclass(frozen=True, eq=False)
class Verdict:
    """Logarithms of predicted over measured divergence `(n,)` of all types and models not measured for the prediction, model and type of each `(n,)`,
    and whether it is in the 90 % interval `(n,)`.
    """

    errors: NDArray[np.float64]
    model: NDArray[np.int64]
    form: NDArray[np.int64]
    in_90: NDArray[np.bool_]

    def among(self, mask: NDArray[np.bool_]) -> "Verdict":
        """Return the verdict over the predictions in `mask` `(n,)`."""
        return Verdict(self.errors[mask], self.model[mask], self.form[mask], self.in_90[mask])

    @property
    def within(self) -> float:
        """Share predicted within the factor."""
        return float(np.mean(np.abs(self.errors) <= np.log(WITHIN)))

    def factor(self, quantile: float) -> float:
        """Return the factor by which so many of the predictions are wrong at most."""
        return float(np.exp(np.quantile(np.abs(self.errors), quantile)))

    def within_of(self, model: int) -> float:
        """Return the share of a model's types predicted within the factor, NaN where none was."""
        errors = self.errors[self.model == model]
        return float(np.mean(np.abs(errors) <= np.log(WITHIN))) if len(errors) else np.nan


def atlas(models: tuple[Published, ...]) -> Atlas:
    """Gather the curves of all models over all measured types.

    Raises:
        UserError: the single tensors of a model have a type that was not measured on it as a whole.
    """
    types = curve_types(models)
    for model in models:
        if model.reference not in model.whole or of_its_own(model.reference) not in types:
            raise UserError(
                f"The type of single tensors must be measured on the whole model too, and {model.reference} of {model.name} is not: leave it out."
            )
    curves = np.log([[model.whole.get(form, np.nan) for form in types] for model in models])
    return Atlas(models, types, curves, kinship(models), siblings(models))


def asked(known: Atlas, model: int, points: NDArray[np.int64], without: Sequence[int]) -> Question:
    """Return the question after `model`, with the models `without` and itself unknown."""
    others = np.array([i for i in range(len(known.models)) if i != model and i not in without])
    published = known.models[model]
    return Question(
        curves=known.curves[others],
        among=known.kin[np.ix_(others, others)],
        to=known.kin[model, others],
        points=points,
        at_points=known.curves[model, points],
        sum_of_singles=sum(published.singles.values()),
        singles_type=known.types.index(of_its_own(published.reference)),
    )


def judged(known: Atlas, predictor: Predictor, pairs: Sequence[tuple[str, ...]], *, alone: bool = False) -> Verdict:
    """Predict every model from the types named in its entry of `pairs`, siblings left out too where `alone`; a model without them is passed over."""
    errors, model, form, in_90 = [], [], [], []
    for i, names in enumerate(pairs):
        points = known.indices(names)
        if np.isnan(known.curves[i, points]).any():
            continue
        answer = predictor(asked(known, i, points, known.unknown_with(i) if alone else ()))
        rest = np.setdiff1d(np.flatnonzero(np.isfinite(known.curves[i])), points)
        found = _errors(known, i, rest, answer)
        errors.append(found)
        model.append(np.full(len(rest), i))
        form.append(rest)
        in_90.append(np.abs(found) <= _IN_90 * answer.deviation[rest])
    return Verdict(*(np.concatenate(part) for part in (errors, model, form, in_90)))


def chosen_pairs(known: Atlas, predictor: Predictor, *, alone: bool = False) -> list[tuple[str, ...]]:
    """Return for each model the pair of its measured types that leaves `predictor` least variance over the mainline types (an A-optimal design),
    known before anything of the model is measured.
    """
    pairs = [pair for pair in combinations(CHOSEN_FROM, 2) if all(form in known.types for form in pair)]
    return [min(pairs, key=lambda pair: _variance(known, predictor, pair, model, alone=alone)) for model in range(len(known.models))]


def _variance(known: Atlas, predictor: Predictor, pair: tuple[str, ...], model: int, *, alone: bool) -> float:
    points = known.indices(pair)
    if np.isnan(known.curves[model, points]).any():
        return np.inf
    answer = predictor(asked(known, model, points, known.unknown_with(model) if alone else ()))
    return float(np.mean(answer.deviation[np.isin(known.types, MAINLINE)] ** 2))


def _errors(known: Atlas, model: int, types: NDArray[np.int64], answer: Answer) -> NDArray[np.float64]:
    return answer.curve[types] - known.curves[model, types]
