"""The knapsack with a quadratic loss: the contract where there is none, brute force where there is, and as many layers as a model has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search import Solution, solve, solve_quadratic
from bitwright.spaces import Choices, Space
from bitwright.testing.solver_contract import ExactContract
from tests.search.instances import Table, budgets, every_choice, instances, losses, space_of, thorough


@pytest.mark.slow
class TestWithoutMatrix(ExactContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve_quadratic(space, table, budget_bits, form=space.formats[0], matrix=np.zeros((len(space.units), len(space.units))))


def together(matrix: NDArray[np.float64], choices: Choices, index: int) -> NDArray[np.float64]:
    share = (choices == index).astype(float)
    return np.einsum("ni,ij,nj->n", share, matrix, share)


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0), st.booleans(), st.data())
@thorough
def test_the_best_choice_is_found_for_any_symmetric_matrix(
    instance: tuple[Space, Table], share: float, semidefinite: bool, data: st.DataObject
) -> None:
    space, table = instance
    n = len(space.units)
    half = np.array([[data.draw(st.integers(-8, 8)) / 4 for _ in range(n)] for _ in range(n)])
    matrix = half @ half.T if semidefinite else half + half.T
    index = data.draw(st.integers(0, len(space.formats) - 1))
    budget_bits = budgets(space, share)
    choices = every_choice(space)
    choices = choices[space.total_bits(choices) <= budget_bits]
    best = (losses(table, choices) + together(matrix, choices, index)).min()
    solution = solve_quadratic(space, table, budget_bits, form=space.formats[index], matrix=matrix)
    assert solution.size_bits == space.total_bits(solution.choice) <= budget_bits
    assert space.offered[np.arange(n), solution.choice].all()
    assert solution.loss == pytest.approx(best, abs=1e-8)
    assert solution.loss == pytest.approx((losses(table, solution.choice[None]) + together(matrix, solution.choice[None], index))[0], abs=1e-9)
    assert solution.lower_bound <= best + 1e-8
    assert 0 <= solution.gap <= 1e-7


def test_layers_that_hurt_together_are_not_lowered_together() -> None:
    space = space_of([[16, 8]] * 4, [[True, True]] * 4)
    table = np.array([[0.0, 1.0], [0.0, 1.1], [0.0, 1.2], [0.0, 1.3]])
    matrix = np.zeros((4, 4))
    matrix[0, 1] = matrix[1, 0] = 0.5
    assert solve(space, table, 48).choice.tolist() == [1, 1, 0, 0]
    assert solve_quadratic(space, table, 48, form=space.formats[1], matrix=matrix).choice.tolist() == [1, 0, 1, 0]


def coopq(n_layers: int, seed: int) -> tuple[Space, Table, NDArray[np.float64]]:
    """Marginals over a hundred permutations with four common causes, their covariance shrunk by half, and CoopQ's linear part."""
    rng = np.random.default_rng(seed)
    shapley = np.exp(rng.normal(0, 1, n_layers)) * (1 + 0.5 * rng.normal(size=(100, 4)) @ rng.normal(0, 0.5, (4, n_layers)))
    matrix = 0.5 * np.cov(shapley.T) + 0.5 * np.diag(shapley.var(axis=0, ddof=1))
    table = np.zeros((n_layers, 2))
    table[:, 1] = shapley.mean(axis=0) - matrix.sum(axis=1) + np.diag(matrix)
    return space_of([[16, 8]] * n_layers, [[True, True]] * n_layers), table, matrix


@pytest.mark.parametrize("seed", range(3))
def test_the_layers_of_a_model_with_all_their_covariances_are_solved(seed: int) -> None:
    space, table, matrix = coopq(30, seed)
    solution = solve_quadratic(space, table, 30 * 12, form=space.formats[1], matrix=matrix)
    assert solution.gap <= 1e-9 * np.abs(matrix).max()
    additive = solve(space, table, 30 * 12).choice[None]
    assert solution.loss < (losses(table, additive) + together(matrix, additive, 1))[0]


def test_without_time_the_additive_choice_is_answered_with_a_gap() -> None:
    space, table, matrix = coopq(30, 0)
    solution = solve_quadratic(space, table, 30 * 12, form=space.formats[1], matrix=matrix, limit_seconds=0.0)
    assert solution.size_bits <= 30 * 12
    assert 0 < solution.gap < np.inf
    assert solution.lower_bound <= solve_quadratic(space, table, 30 * 12, form=space.formats[1], matrix=matrix).loss <= solution.loss


def test_what_is_no_matrix_of_the_units_is_refused() -> None:
    space = space_of([[16, 8]] * 2, [[True, True]] * 2)
    for matrix in (np.ones((3, 3)), np.array([[0.0, 1.0], [0.0, 0.0]]), np.full((2, 2), np.nan)):
        with pytest.raises(UserError, match="finite symmetric matrix"):
            solve_quadratic(space, np.zeros((2, 2)), 100, form=space.formats[1], matrix=matrix)
