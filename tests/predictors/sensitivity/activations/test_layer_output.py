from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Tapped, Tokens
from bitwright.predictors.sensitivity.activations.input_moments import Moments
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors, squared_norm
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.sensitivity.activations.test_input_moments import Recorded
from tests.predictors.subjects import opened


class TestAbsoluteTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return layer_output_errors(subject).absolute()


class TestRelativeTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return layer_output_errors(subject).relative()


def test_by_hand() -> None:
    """Two experts of one row each, of which the second sees the token (1, 2) in half of the cases and the first nothing; rows looked up unequally."""
    inputs = torch.zeros((2, 2, 2))
    inputs[1] = torch.tensor([[1.0, 2.0], [2.0, 4.0]]) / 2
    cost = squared_norm(Moments(inputs, np.array([0.25, 0.75])))
    # (3 · 1 − 1 · 2)² / 2, and 0.25 · (1 + 1) + 0.75 · (9 + 1)
    assert cost(np.array([[1, 1], [3, -1]], dtype=np.float32)) == pytest.approx((0.5, 8.0))


def test_what_is_only_looked_up_is_not_multiplied() -> None:
    assert squared_norm(Moments(torch.zeros((0, 2, 2)), np.array([1.0])))(np.array([[3, 4]], dtype=np.float32)) == (0, 25)


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_errors_are_those_of_the_outputs(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Expected errors apply both weights to every recorded input."""
    model: Model = request.getfixturevalue(name)
    space, levels, tokens, recorded = space_of(model, ("Q8_0", "Q4_0")), levels_of(model, tmp_path), random_tokens(9, 6), Recorded()
    with opened(model, levels, space=space, tokens=tokens, store=tmp_path / "a") as subject:
        errors = layer_output_errors(subject)
    with Tapped(model, recorded), torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids))

    def powers(tensor: str, matrix: np.ndarray) -> list[float]:
        groups = [group for of, group in recorded.inputs if of == tensor]
        parts = np.split(matrix.astype(np.float64), 1 + max(groups, default=0))
        multiplied = sum(float(((x @ parts[group].T) ** 2).sum()) for group in groups for x in recorded.inputs[tensor, group])
        looked_up = sum(float((matrix[row].astype(np.float64) ** 2).sum()) for row in recorded.rows.get(tensor, []))
        return [multiplied / tokens.n_tokens, looked_up / tokens.n_tokens]

    for u, unit in enumerate(space.units):
        (tensor,) = unit.tensors
        original = model.source.read(tensor)
        np.testing.assert_allclose(errors.original[u], powers(tensor.name, original), rtol=1e-3)
        for f in np.flatnonzero(space.offered[u]):
            np.testing.assert_allclose(errors.changed[u, f], powers(tensor.name, levels.weights(tensor, space.formats[f]) - original), rtol=1e-3)
    both = (errors.original > 0).all(axis=1)
    assert both.any() == (name == "tied")
