"""Contract tests of solvers of a table and a budget. Inherit from `StrategyContract`, and from `ExactContract` where the answer is
always the best one, and say how to solve:

class TestMine(StrategyContract):
    def solve(self, space, table, budget_bits):
        return my_strategy(space, table, budget_bits)
"""

from abc import ABC, abstractmethod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.errors import BudgetError, UserError
from bitwright.search import Solution
from bitwright.spaces import Space
from bitwright.testing.instances import Table, budgets, every_choice, instances, losses, space_of

_inherited = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, max_examples=75)
#: for what hardly depends on the instance: a solver that breaks it does so on most of them
_few = settings(_inherited, max_examples=40)
_SHARES = st.floats(0.0, 1.0)


class StrategyContract(ABC):
    """Contract of solvers: a choice of offered pairs within the budget, counted truly, and a bound that holds."""

    @abstractmethod
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        """Run the solver under test."""

    @given(instances(), _SHARES)
    @_inherited
    def test_no_choice_within_the_budget_lies_below_the_bound(self, instance: tuple[Space, Table], share: float) -> None:
        """Require that no choice within the budget has a smaller loss than the bound."""
        space, table = instance
        budget_bits = budgets(space, share)
        solution = self.solve(space, table, budget_bits)
        choices = every_choice(space)
        best = losses(table, choices[space.total_bits(choices) <= budget_bits]).min()
        assert solution.lower_bound <= best + 1e-9
        assert solution.loss >= best - 1e-9
        assert solution.gap >= 0
        assert solution.n_nodes >= 0

    @given(instances(), _SHARES)
    @_inherited
    def test_keeps_the_budget_with_offered_pairs_and_counts_truly(self, instance: tuple[Space, Table], share: float) -> None:
        """Require offered pairs within the budget, with the size and loss that were reported."""
        space, table = instance
        budget_bits = budgets(space, share)
        solution = self.solve(space, table, budget_bits)
        assert solution.choice.shape == (len(space.units),)
        assert solution.choice.dtype == np.int64
        assert space.offered[np.arange(len(space.units)), solution.choice].all()
        assert solution.size_bits == space.total_bits(solution.choice) <= budget_bits
        assert solution.loss == losses(table, solution.choice[None])[0]

    @given(instances(), _SHARES)
    @_few
    def test_never_splits_a_tie(self, instance: tuple[Space, Table], share: float) -> None:
        """Require one format for all tensors of a unit."""
        space, table = instance
        names = space.names(self.solve(space, table, budgets(space, share)).choice)
        assert all(len({names[tensor.name] for tensor in unit.tensors}) == 1 for unit in space.units)

    @given(instances(), _SHARES)
    @_few
    def test_answers_the_same_twice(self, instance: tuple[Space, Table], share: float) -> None:
        """Require the same choice for the same instance."""
        space, table = instance
        first, second = (self.solve(space, table, budgets(space, share)) for _ in range(2))
        assert (first.choice == second.choice).all()

    def test_passes_by_an_option_that_alone_exceeds_the_budget(self) -> None:
        """Require the best of the rest where one option alone exceeds the budget."""
        space = space_of([[8, 10**12], [8, 16]], [[True, True], [True, True]])
        assert self.solve(space, np.array([[1.0, 0.0], [1.0, 0.5]]), 24).choice.tolist() == [0, 1]

    @given(instances())
    @_few
    def test_takes_the_smallest_file_when_nothing_else_fits(self, instance: tuple[Space, Table]) -> None:
        """Require the smallest file where nothing else fits."""
        space, table = instance
        smallest = int(space.total_bits(space.smallest()))
        assert self.solve(space, table, smallest).size_bits == smallest

    @given(instances())
    @_few
    def test_refuses_a_budget_one_bit_below_the_smallest_file(self, instance: tuple[Space, Table]) -> None:
        """Require a `BudgetError` one bit below the smallest file."""
        space, table = instance
        with pytest.raises(BudgetError, match=r"smallest file .* bytes .* raise it"):
            self.solve(space, table, int(space.total_bits(space.smallest())) - 1)

    @given(instances())
    @_few
    def test_takes_the_least_of_every_unit_when_all_fits(self, instance: tuple[Space, Table]) -> None:
        """Require the least loss of every unit where all fit."""
        space, table = instance
        least = np.where(space.offered, table, np.inf).min(axis=1)
        assert self.solve(space, table, 10**30).loss == pytest.approx(least.sum(), rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_refuses_what_is_not_finite(self, value: float) -> None:
        """Require a `UserError` that names an offered pair whose loss is infinite or undefined."""
        space = space_of([[8, 16]], [[True, True]])
        with pytest.raises(UserError, match=r"u0 in F1 is .*: measure it again"):
            self.solve(space, np.array([[1.0, value]]), 100)

    def test_refuses_a_table_of_another_shape(self) -> None:
        """Require a `UserError` that names both shapes."""
        with pytest.raises(UserError, match=r"\(1, 2\).*\(2, 1\)"):
            self.solve(space_of([[8, 16]], [[True, True]]), np.ones((2, 1)), 100)


class ExactContract(StrategyContract):
    """Contract of exact solvers."""

    @given(instances(), _SHARES)
    @_inherited
    def test_answers_the_best_choice_there_is(self, instance: tuple[Space, Table], share: float) -> None:
        """Require the least loss of all choices within the budget, by brute force."""
        space, table = instance
        budget_bits = budgets(space, share)
        solution = self.solve(space, table, budget_bits)
        choices = every_choice(space)
        best = losses(table, choices[space.total_bits(choices) <= budget_bits]).min()
        assert solution.loss == pytest.approx(best, rel=1e-9, abs=1e-9)
        assert solution.lower_bound <= best + 1e-9
        assert 0 <= solution.gap <= 1e-9
