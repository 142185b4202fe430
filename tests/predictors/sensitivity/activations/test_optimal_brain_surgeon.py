from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import Levels, Model
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations.input_moments import Moments
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors
from bitwright.predictors.sensitivity.activations.optimal_brain_surgeon import DAMPING, _loss, obs_table, residual_variance
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestSurgeonTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return obs_table(subject)


def moments(seed: int, n_columns: int = 6) -> torch.Tensor:
    x = np.random.default_rng(seed).standard_normal((20, n_columns)) @ np.random.default_rng(seed + 1).standard_normal((n_columns, n_columns))
    return torch.from_numpy(x.T @ x / 20).float()


def hessian(inputs: torch.Tensor) -> np.ndarray:
    """H = 2 E x xᵀ + λ."""
    doubled = 2 * inputs.double().numpy()
    return doubled + DAMPING * np.diag(doubled).mean() * np.eye(len(doubled))


def test_uncorrelated_inputs_by_hand() -> None:
    np.testing.assert_allclose(residual_variance(torch.diag(torch.tensor([1.0, 5.0]))), [1.03, 5.03])


def test_two_equal_inputs_by_hand() -> None:
    """The first is explained by the second but for the damping of 0.01: 1.01 − 1/1.01."""
    np.testing.assert_allclose(residual_variance(torch.ones((2, 2))), [1.01 - 1 / 1.01, 1.01])


@given(st.integers(0, 1000))
def test_it_is_the_diagonal_of_the_inverse_without_the_channels_before(seed: int) -> None:
    inputs = moments(seed)
    h = hessian(inputs)
    expected = [0.5 / np.linalg.inv(h[j:, j:])[0, 0] for j in range(len(h))]
    np.testing.assert_allclose(residual_variance(inputs), expected, rtol=1e-6)
    np.testing.assert_allclose(residual_variance(inputs), 0.5 / np.diag(np.linalg.cholesky(np.linalg.inv(h)).T) ** 2, rtol=1e-6)  # as published


@given(st.integers(0, 1000))
def test_it_is_the_error_left_after_compensation(seed: int) -> None:
    inputs, j = moments(seed), seed % 5
    h = hessian(inputs)
    best = -np.linalg.solve(h[j + 1 :, j + 1 :], h[j + 1 :, j])
    change = np.concatenate([np.zeros(j), [1.0], best])
    assert 0.5 * change @ h @ change == pytest.approx(residual_variance(inputs)[j], rel=1e-6)


def test_a_loss_by_hand() -> None:
    inputs = torch.stack([torch.zeros((2, 2)), torch.diag(torch.tensor([1.0, 5.0]))])  # the first expert sees nothing
    cost = _loss(Moments(inputs, np.array([0.5, 0.0])))
    assert cost(np.array([[1, 1], [2, -1]], dtype=np.float32)) == pytest.approx((4 * 1.03 + 5.03, 0.5 * 2))


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_a_look_up_costs_its_own_error_and_a_matrix_less_than_that(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Making up for errors can only help, so the loss lies below the importance-weighted error, and for a look-up it is the error of the row."""
    model: Model = request.getfixturevalue(name)
    space, levels = space_of(model, ("Q8_0", "Q4_0")), levels_of(model, tmp_path)
    with opened(model, levels, space=space, tokens=random_tokens(9, 6), store=tmp_path / "a") as subject:
        table, errors = obs_table(subject), layer_output_errors(subject)
    alone = (errors.original[:, 0] == 0)[:, None] & space.offered
    np.testing.assert_allclose(table[alone], errors.absolute()[alone], rtol=1e-5)
    multiplied = ~alone & space.offered
    assert (table[multiplied] < 1.2 * errors.absolute()[multiplied]).all()
    assert np.median(table[multiplied] / errors.absolute()[multiplied]) < 0.95
    assert alone.any() == (name == "mixtral")
