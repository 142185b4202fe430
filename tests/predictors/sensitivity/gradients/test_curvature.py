from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors, measure_distortion
from bitwright.errors import ModelError
from bitwright.objectives import Tokens, is_mixture
from bitwright.predictors.sensitivity.gradients.curvature import Trace, hessian_trace, trace_table
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal, Loss, SampledLabels, TextLabels
from bitwright.predictors.sensitivity.weights.weight_error import absolute_error_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened
from tests.sentences import sentence

pytestmark = pytest.mark.slow


class TestTraceTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        errors = absolute_error_table(measure_distortion(space, levels, progress=Silent()), space, levels=levels)
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return trace_table(hessian_trace(subject, FromOriginal(), n_probes=4), space, absolute_error=errors)


def moved(model: Model, signs: dict[str, torch.Tensor], step: float) -> Any:
    other = deepcopy(model.module).double()
    if is_mixture(model):
        other.set_experts_implementation("eager")
    with torch.no_grad():
        for name, sign in signs.items():
            other.get_parameter(name).add_(step * sign)
    for weight in other.parameters():
        weight.requires_grad_(True)
    return other


def slopes(module: Any, original: Any, loss: Loss, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of the loss summed over all sequences, in float64."""
    found = module(ids, use_cache=False).logits.log_softmax(dim=-1)
    if loss.name == "from original":
        with torch.no_grad():
            known = original(ids, use_cache=False).logits.log_softmax(dim=-1)
        value = (known.exp() * (known - found)).sum()
    else:
        value = -found[:, :-1].gather(-1, ids[:, 1:, None]).sum()
    names, weights = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, weights, allow_unused=True), strict=True))


@pytest.mark.parametrize("loss", [TextLabels(), FromOriginal()], ids=lambda loss: loss.name)
@pytest.mark.parametrize("name", ["tied", "mixtral", "dense"])
def test_one_probe_is_what_finite_differences_give(name: str, loss: Loss, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, tokens = space_of(model, ("Q4_0",)), random_tokens(3, 6)
    with opened(model, levels_of(model, tmp_path), space=space, tokens=tokens, store=tmp_path / "a.sqlite", seed=5) as subject:
        found = hessian_trace(subject, loss, n_probes=1)
    generator = torch.Generator().manual_seed(5 * 1_000_003)
    names = sorted({piece.parameter for unit in space.units for tensor in unit.tensors for piece in model.pieces[tensor.name]})
    shapes = {name: model.module.get_parameter(name).shape for name in names}
    signs = {name: torch.randint(0, 2, shape, generator=generator).mul(2).sub(1).double() for name, shape in shapes.items()}
    step, ids = 1e-5, torch.from_numpy(tokens.ids)
    original = moved(model, signs, 0.0)
    ahead, behind = (slopes(moved(model, signs, way * step), original, loss, ids) for way in (1, -1))
    expected = np.zeros(len(space.units))
    for u, unit in enumerate(space.units):
        for piece in (piece for tensor in unit.tensors for piece in model.pieces[tensor.name]):
            if ahead[piece.parameter] is not None:
                curved = signs[piece.parameter] * (ahead[piece.parameter] - behind[piece.parameter]) / (2 * step)
                expected[u] += float(piece.matrix(curved)[piece.start : piece.stop].sum())
    expected /= tokens.n_tokens
    np.testing.assert_allclose(found.values, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert np.isinf(found.errors).all()
    assert np.abs(expected).min() > 0


def test_the_trace_of_the_divergence_is_that_of_the_fisher_information(tied: Model, tmp_path: Path) -> None:
    """Tr F = E‖g‖² with drawn labels, from autograd on whole parameters; both are estimates."""
    space, tokens = space_of(tied, ("Q4_0",)), random_tokens(16, 6)
    with opened(tied, levels_of(tied, tmp_path), space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        found = hessian_trace(subject, FromOriginal(), n_probes=16)
    module, expected, rng = moved(tied, {}, 0.0), np.zeros(len(space.units)), torch.Generator().manual_seed(0)
    names = [tied.pieces[unit.tensors[0].name][0].parameter for unit in space.units]
    for ids in torch.from_numpy(tokens.ids).repeat(4, 1):
        logits = module(ids[None], use_cache=False).logits[0].log_softmax(dim=-1)
        labels = torch.multinomial(logits.detach().exp(), 1, generator=rng)
        slope = torch.autograd.grad(logits.gather(-1, labels).sum(), [module.get_parameter(name) for name in names])
        expected += [float(part.square().sum()) for part in slope]
    expected /= 4 * tokens.n_tokens
    ratio = found.values / expected
    assert expected.max() / expected.min() > 5
    assert np.exp(np.abs(np.log(ratio)).mean()) < 1.25


def test_finished_batches_are_cached_by_number_of_probes(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(tied, ("Q4_0",))
    with opened(tied, levels_of(tied, tmp_path), space=space, tokens=random_tokens(6, 6), store=tmp_path / "a.sqlite") as subject:
        first = hessian_trace(subject, TextLabels(), n_probes=1)
        more = hessian_trace(subject, TextLabels(), n_probes=2)
        monkeypatch.setattr("bitwright.predictors.sensitivity.gradients.curvature._gradients", None)
        monkeypatch.setattr(TextLabels, "slope", None)
        np.testing.assert_array_equal(hessian_trace(subject, TextLabels(), n_probes=1).values, first.values)
    assert (first.values != more.values).all()
    assert (first.errors > 0).all()


def test_derivatives_that_are_not_finite_are_refused(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(tied, ("Q4_0",))
    monkeypatch.setattr("bitwright.predictors.sensitivity.gradients.curvature._of_batch", lambda *_, **__: np.full(len(space.units), np.nan))
    levels, tokens = levels_of(tied, tmp_path), random_tokens(1, 6)
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject, pytest.raises(ModelError) as refused:
        hessian_trace(subject, SampledLabels(), n_probes=1)
    sentence(refused.value, "finite", "--sensitivity")


def test_the_table_is_half_the_mean_curvature_times_the_error(tied: Model) -> None:
    space = space_of(tied, ("Q4_0",))
    n_weights = np.array([unit.n_weights for unit in space.units])
    values = np.arange(len(n_weights)) - 1.0
    table = trace_table(Trace(values, np.ones_like(values)), space, absolute_error=np.full(space.offered.shape, 3.0))
    np.testing.assert_allclose(table[:, 0], np.maximum(values, 0) / n_weights * 1.5)
