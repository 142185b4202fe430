from bitwright_example.method import annealing

from bitwright.search import Problem, Strategy
from bitwright.testing.strategy_contract import BudgetContract


class TestAnnealing(BudgetContract):
    n_to_best = 400

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return annealing(problem, budget_bits)
