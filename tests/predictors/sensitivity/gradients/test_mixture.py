"""Mixtures of formats: their divergence against torch's own, their slopes against finite differences, and the model afterwards."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.compress import Model, PackedTensors, applied
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.predictors import Mixtures, Subject
from bitwright.predictors.sensitivity.gradients.mixture import MixedWeights
from bitwright.progress import Silent
from bitwright.spaces import Space
from tests.measuring import levels_of, random_tokens, space_of, weights_of
from tests.predictors.subjects import opened

TOKENS = random_tokens(6, 8)
SOME = np.array([1, 2, 5])


@pytest.fixture(scope="module", params=["tied", "mixtral"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A subject of formats from the stored one to a coarse one."""
    made: Model = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("mixture")
    with opened(made, levels_of(made, folder / "levels"), space=space_of(made, ("BF16", "Q8_0", "Q4_0")), tokens=TOKENS, store=folder / "a") as found:
        yield found


def mixtures(subject: Subject) -> Mixtures:
    return Mixtures(subject, Reference(subject.model, TOKENS, scratch=subject.levels.folder, progress=Silent()))


def shares_of(space: Space) -> NDArray[np.float64]:
    """Random shares, another for each unit."""
    drawn = np.where(space.offered, np.random.default_rng(1).uniform(0.2, 1.0, space.offered.shape), 0.0)
    return drawn / drawn.sum(axis=1, keepdims=True)


def measured(subject: Subject, shares: NDArray[np.float64]) -> float:
    """The divergence of the mixture on `SOME`, measured as any other weights."""
    space, levels = subject.space, subject.levels
    reference = Reference(subject.model, TOKENS, scratch=levels.folder, progress=Silent())
    forms = [tuple((space.formats[f], float(row[f])) for f in np.flatnonzero(row)) for row in shares]
    weights = {unit.tensors[0].name: MixedWeights(levels, unit.tensors[0], form) for unit, form in zip(space.units, forms, strict=True)}
    with applied(subject.model, weights):
        return float(reference.measure(subject.model, (KullbackLeibler(),))[SOME, 0].mean())


@pytest.mark.slow
def test_the_divergence_is_that_of_the_mixed_weights_and_its_slopes_those_of_small_changes(subject: Subject) -> None:
    space, shares = subject.space, shares_of(subject.space)
    nats, slopes = mixtures(subject)(shares, SOME)
    assert nats == pytest.approx(measured(subject, shares), rel=1e-3)
    assert (slopes[~space.offered] == 0).all()
    assert (shares * slopes).sum(axis=1) == pytest.approx(0, abs=1e-6)
    names = [unit.name for unit in space.units]
    unit = names.index("output") if "output" in names else int(np.abs(slopes).max(axis=1).argmax())  # a step before a router may change the routes
    coarse, fine = int(slopes[unit].argmax()), int(slopes[unit].argmin())
    step = np.zeros(shares.shape)
    step[unit, [coarse, fine]] = (0.05, -0.05)
    by_difference = (measured(subject, shares + step) - measured(subject, shares - step)) / 0.1
    assert slopes[unit, coarse] - slopes[unit, fine] == pytest.approx(by_difference, rel=0.05)


def test_the_original_alone_diverges_by_nothing_and_the_model_is_left_as_it_was(subject: Subject) -> None:
    before, space = weights_of(subject.model), subject.space
    stored = np.array([[form.name == "BF16" for form in space.formats]] * len(space.units), dtype=np.float64)
    assert mixtures(subject)(stored, SOME)[0] == pytest.approx(0, abs=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in subject.model.module.named_parameters())


def test_what_was_mixed_once_is_read_from_the_store(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, shares = mixtures(subject), shares_of(subject.space)
    first = asked(shares, SOME)
    monkeypatch.setattr(PackedTensors, "weights", lambda *_: pytest.fail("mixed again"))
    again = asked(shares, SOME)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1], first[1])
    with pytest.raises(pytest.fail.Exception, match="mixed again"):
        asked(shares, SOME[:2])
