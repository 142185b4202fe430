"""How to choose: the best choice within a budget, the front of all budgets, and the arithmetic of fronts.

A strategy is given a `Space` and a table `(n_units, n_formats)` of nats/token, wherever that comes from, and answers with a `Solution`.
"""

from bitwright.search.course import Course, Problem
from bitwright.search.default_search import Expand, Knowledge, auto, auto_front
from bitwright.search.front import Front, hull, hypervolume, nondominated, spread
from bitwright.search.greedy import demote, promote
from bitwright.search.knapsack import solve
from bitwright.search.lagrangian import solve_lagrangian
from bitwright.search.proportional import given_in_proportion, softmax_shares, taken_in_proportion, unimportance
from bitwright.search.scattered import scattered, sizes_between
from bitwright.search.side_rows import Row, solve_with_rows
from bitwright.search.solution import Solution
from bitwright.search.strategy import Predict, Question, Refit, Strategy, Trials, asked, no_trials
from bitwright.search.tiers import tiered, tiered_within, two_tiers

__all__ = [
    "Course",
    "Expand",
    "Front",
    "Knowledge",
    "Predict",
    "Problem",
    "Question",
    "Refit",
    "Row",
    "Solution",
    "Strategy",
    "Trials",
    "asked",
    "auto",
    "auto_front",
    "demote",
    "given_in_proportion",
    "hull",
    "hypervolume",
    "no_trials",
    "nondominated",
    "promote",
    "scattered",
    "sizes_between",
    "softmax_shares",
    "solve",
    "solve_lagrangian",
    "solve_with_rows",
    "spread",
    "taken_in_proportion",
    "tiered",
    "tiered_within",
    "two_tiers",
    "unimportance",
]
