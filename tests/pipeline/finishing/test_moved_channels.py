"""Choice of maps of channels: the place that a step looks at, the candidates, and the one of least error."""

import numpy as np
import pytest

from bitwright.compress import ChannelScales, GgmlCodec, HeadRotations, Model, ReparametrizedSource, junctions
from bitwright.pipeline.finishing.channel_fitting import Fitting, ReadChannels
from bitwright.pipeline.finishing.moved_channels import MOVING_STEPS, ORDER_CHANNELS, ROTATE, SCALE
from bitwright.pipeline.finishing.steps import step_named
from bitwright.spaces import GGML_BY_NAME


def channels(model: Model, kind: str, energies: np.ndarray, form: str = "Q4_0") -> ReadChannels:
    """Channels of the first block whose inputs are not correlated, of these energies; all matrices are in one format."""
    at = next(at for at in junctions(model.source) if at.kind == kind)
    formats = dict.fromkeys(at.readers, GGML_BY_NAME[form])
    moments = {name: np.diag(energies).astype(np.float32)[None] for name in at.readers}
    importance = {name: energies[None].astype(np.float32) for name in at.readers}
    found = Fitting(ReparametrizedSource(model.source, ()), formats, lambda _: GgmlCodec(), importance, moments).channels(at)
    assert found is not None
    return found


def test_scales_favour_what_has_energy(dense: Model) -> None:
    energies = np.exp(np.random.default_rng(0).normal(size=512) * 2)
    found = channels(dense, "up-down", energies)
    best = SCALE.best(found)
    assert isinstance(best, ChannelScales)
    assert found.error(best) < 0.9 * found.error(None)
    assert np.corrcoef(np.log(best.values[0]), np.log(energies))[0, 1] > 0.5
    assert np.log(best.values).mean() == pytest.approx(0, abs=1e-5)


def test_the_best_of_all_candidates_is_never_worse_than_none(dense: Model) -> None:
    energies = np.ones(256)
    for step, kind in ((SCALE, "norm-attention"), (ROTATE, "value-output"), (SCALE, "value-output")):
        found = channels(dense, kind, energies)
        best = step.best(found)
        assert best is None or found.error(best) < found.error(None)


def test_matrices_that_are_not_quantized_ask_for_nothing(dense: Model) -> None:
    at = next(at for at in junctions(dense.source) if at.kind == "up-down")
    stored = {tensor.name: GGML_BY_NAME[tensor.stored] for tensor in dense.tensors}
    moments = {name: np.eye(512, dtype=np.float32)[None] for name in at.readers}
    for formats in ({}, stored):
        fitting = Fitting(ReparametrizedSource(dense.source, ()), formats, lambda _: GgmlCodec(), {}, moments)
        assert fitting.channels(at) is None
        assert SCALE.fitted(fitting, (at,), lambda _: None).maps == ()


def test_rotations_are_orthogonal(dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadChannels, "error", lambda self, by: 0.0 if by is not None else 1.0)
    best = ROTATE.best(channels(dense, "value-output", np.ones(256)))
    assert isinstance(best, HeadRotations)
    width = best.values.shape[1]
    for head in best.values.reshape(-1, width, width):
        np.testing.assert_allclose(head @ head.T, np.eye(width), atol=1e-6)
        np.testing.assert_allclose(np.abs(head), width**-0.5, rtol=1e-6)


def test_steps_look_where_they_may(dense: Model) -> None:
    places = junctions(dense.source)
    assert {name: step_named(name) for name in MOVING_STEPS} == MOVING_STEPS
    assert {at.kind for at in SCALE.places(places, values=False)} == {"norm-attention", "norm-feed-forward", "up-down"}
    assert len(SCALE.places(places, values=True)) == len(places) == 8
    assert {at.kind for at in ORDER_CHANNELS.places(places, values=True)} == {"up-down"}
    assert ROTATE.places(places, values=False) == ()
