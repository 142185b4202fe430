"""Search for a plan: exact solvers of a sensitivity table, ask/tell strategies that measure plans, and Pareto fronts."""

from bitwright.search.solvers.buckets import solve_in_buckets
from bitwright.search.solvers.constrained import solve_with_rows
from bitwright.search.solvers.constraints import Row, at_least, bits_between
from bitwright.search.solvers.front import Front, hull, hypervolume, nondominated, spread
from bitwright.search.solvers.knapsack import solve
from bitwright.search.solvers.lagrangian import solve_lagrangian
from bitwright.search.solvers.proportional import given_in_proportion, unimportance
from bitwright.search.solvers.quadratic import solve_quadratic
from bitwright.search.solvers.solution import Solution
from bitwright.search.solvers.surface import surface
from bitwright.search.solvers.tiers import tiered_within, two_tiers
from bitwright.search.strategies.amq import Rounds, clustered, predicted_front
from bitwright.search.strategies.auto import Expand, Knowledge, auto, auto_front
from bitwright.search.strategies.evolution import evopress, quantization
from bitwright.search.strategies.fixed import given
from bitwright.search.strategies.generator_strategy import Problem
from bitwright.search.strategies.scattered import scattered, sizes_between
from bitwright.search.strategies.sequential import InTurn
from bitwright.search.strategies.spdy import Reweighing, reweighed
from bitwright.search.strategies.strategy import Question, Refit, Strategy, Trials, no_trials
from bitwright.search.strategies.surrogate import Learning
from bitwright.search.strategies.trust_region import Region, turbo

__all__ = [
    "Expand",
    "Front",
    "InTurn",
    "Knowledge",
    "Learning",
    "Problem",
    "Question",
    "Refit",
    "Region",
    "Reweighing",
    "Rounds",
    "Row",
    "Solution",
    "Strategy",
    "Trials",
    "at_least",
    "auto",
    "auto_front",
    "bits_between",
    "clustered",
    "evopress",
    "given",
    "given_in_proportion",
    "hull",
    "hypervolume",
    "no_trials",
    "nondominated",
    "predicted_front",
    "quantization",
    "reweighed",
    "scattered",
    "sizes_between",
    "solve",
    "solve_in_buckets",
    "solve_lagrangian",
    "solve_quadratic",
    "solve_with_rows",
    "spread",
    "surface",
    "tiered_within",
    "turbo",
    "two_tiers",
    "unimportance",
]
