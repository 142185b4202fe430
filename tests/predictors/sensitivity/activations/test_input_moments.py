from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Model
from bitwright.objectives import Tap, Tapped, Use
from bitwright.predictors.sensitivity.activations.input_moments import Cost, Moments, OutputErrors, quadratic_errors, row_powers
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class Recorded(Tap):
    """Every input of every tensor and expert `(n, n_columns)`, and every row looked up, in the order of the engine."""

    def __init__(self) -> None:
        self.inputs: dict[tuple[str, int], list[np.ndarray]] = {}
        self.rows: dict[str, list[int]] = {}

    def linear(self, uses: list[Use], x: torch.Tensor, y: torch.Tensor) -> None:
        for use in uses:
            self.inputs.setdefault((use.tensor, use.group), []).append(x.reshape(-1, x.shape[-1]).double().numpy())

    def embedding(self, uses: list[Use], ids: torch.Tensor, y: torch.Tensor) -> None:
        for use in uses:
            self.rows.setdefault(use.tensor, []).extend([use.order.tolist().index(i) for i in ids.reshape(-1).tolist()])


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_moments_are_of_all_that_a_tensor_is_applied_to(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, tokens, recorded, seen = space_of(model, ("Q4_0",)), random_tokens(9, 6), Recorded(), list[Moments]()

    def judge(moments: Moments) -> Cost:
        seen.append(moments)
        return lambda _: (0.0, 0.0)

    with opened(model, levels_of(model, tmp_path), space=space, tokens=tokens, store=tmp_path / "a") as subject:
        quadratic_errors(subject, "mine", judge)
    with Tapped(model, recorded), torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids))
    tensors = [tensor for unit in space.units for tensor in unit.tensors]
    assert any(len(moments.inputs) == 4 for moments in seen) == (name == "mixtral")
    for tensor, moments in zip(tensors, seen, strict=True):
        for group, found in enumerate(moments.inputs):
            x = np.concatenate(recorded.inputs[tensor.name, group]) if (tensor.name, group) in recorded.inputs else np.zeros((1, len(found)))
            np.testing.assert_allclose(found.numpy(), x.T @ x / tokens.n_tokens, rtol=1e-3, atol=1e-5)
        assert bool(len(moments.inputs)) == ((tensor.name, 0) in recorded.inputs)
        counts = np.bincount(recorded.rows.get(tensor.name, []), minlength=len(moments.look_ups))
        np.testing.assert_allclose(moments.look_ups, counts / tokens.n_tokens)


def squares(_: Moments) -> Cost:
    def cost(matrix: Floats) -> tuple[float, float]:
        return float((matrix**2).sum()), float(np.abs(matrix).sum())

    return cost


def test_costs_are_of_changes_and_of_the_original(mixtral: Model, tmp_path: Path) -> None:
    space, levels = space_of(mixtral, ("Q8_0", "Q4_0")), levels_of(mixtral, tmp_path)
    with opened(mixtral, levels, space=space, tokens=random_tokens(2, 6), store=tmp_path / "a") as subject:
        found = quadratic_errors(subject, "mine", squares)
    assert np.isnan(found.changed[~space.offered]).all()
    for u, f in np.argwhere(space.offered):
        (tensor,) = space.units[u].tensors
        original = mixtral.source.read(tensor)
        np.testing.assert_allclose(found.changed[u, f], squares(None)(levels.weights(tensor, space.formats[f]) - original))
        np.testing.assert_allclose(found.original[u], squares(None)(original))


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a pass was run again")


def test_one_pass_for_each_portion_and_none_again(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, n_passes = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), list[int]()
    for i, bound in enumerate((1 << 30, 4 * 64**2 * 3)):  # three matrices of 64 columns, or less than one of 96 beside another
        monkeypatch.setattr("bitwright.predictors.sensitivity.block_hooks.BOUND_BYTES", bound)
        n_passes.append(0)

        def read(*given: Any) -> None:
            n_passes[-1] += 1

        with opened(tied, levels, space=space, tokens=random_tokens(2, 6), store=tmp_path / f"{i}") as subject, monkeypatch.context() as patched:
            patched.setattr("bitwright.predictors.sensitivity.activations.input_moments.run_subject", read)
            first = quadratic_errors(subject, "mine", squares)
            patched.setattr("bitwright.predictors.sensitivity.activations.input_moments.run_subject", refuse)
            np.testing.assert_array_equal(quadratic_errors(subject, "mine", squares).changed, first.changed)
            with pytest.raises(AssertionError, match="again"):
                quadratic_errors(subject, "another", squares)
    assert n_passes[0] == 1
    assert 5 <= n_passes[1] <= 10


def test_relative_errors_are_added_over_both_uses() -> None:
    changed = np.array([[[1.0, 3.0], [np.nan, np.nan]], [[2.0, 0.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    errors = OutputErrors(changed, np.array([[10.0, 6.0], [8.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(errors.absolute(), [[4, np.nan], [2, 4], [0, 0]])
    np.testing.assert_allclose(errors.relative(), [[0.1 + 0.5, np.nan], [0.25, 0.5], [0, 0]])


def test_row_powers() -> None:
    assert row_powers(np.array([[1, 2], [0, 3]], dtype=np.float32)).tolist() == [5, 9]
