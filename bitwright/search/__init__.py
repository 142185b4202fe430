"""How to choose: the best choice within a budget, the front of all budgets, and the arithmetic of fronts.

A strategy is given a `Space` and a table `(n_units, n_formats)` of nats/token, wherever that comes from, and answers with a `Solution`.
"""

from bitwright.search.front import Front, hull, hypervolume, nondominated, spread
from bitwright.search.knapsack import solve
from bitwright.search.side_rows import Row, solve_with_rows
from bitwright.search.solution import Solution

__all__ = ["Front", "Row", "Solution", "hull", "hypervolume", "nondominated", "solve", "solve_with_rows", "spread"]
