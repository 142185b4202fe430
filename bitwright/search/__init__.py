"""How to choose: the best choice within a budget, the front of all budgets, and the arithmetic of fronts.

A strategy is given a `Space` and a table `(n_units, n_formats)` of nats/token, wherever that comes from, and answers with a `Solution`.
"""

from bitwright.search.amq import Rounds, clustered, predicted_front, stratified
from bitwright.search.bayesian import Hypervolume, nehvi_front
from bitwright.search.belief import Learning
from bitwright.search.buckets import solve_in_buckets
from bitwright.search.course import Course, Problem
from bitwright.search.default_search import Expand, Knowledge, auto, auto_front
from bitwright.search.evolution import Generations, Stage, evopress, quantization, sparsity, super_fast
from bitwright.search.extras import require_extra
from bitwright.search.front import Front, hull, hypervolume, nondominated, spread
from bitwright.search.genetic import Breeding
from bitwright.search.given import given
from bitwright.search.greedy import demote, promote
from bitwright.search.in_turn import InTurn
from bitwright.search.knapsack import solve
from bitwright.search.lagrangian import solve_lagrangian
from bitwright.search.local_search import Swaps, swaps
from bitwright.search.neighbours import Groups, all_together, by_kind, by_size
from bitwright.search.optuna_samplers import nsga2, nsga2_front, tpe
from bitwright.search.proportional import given_in_proportion, softmax_shares, taken_in_proportion, unimportance
from bitwright.search.quadratic import solve_quadratic
from bitwright.search.random_choices import random_front, random_mixes, random_within
from bitwright.search.rows import Row, at_least, at_most, bits_between, layer_budgets, window
from bitwright.search.scattered import scattered, sizes_between
from bitwright.search.side_rows import row_prices, solve_with_rows
from bitwright.search.solution import Solution
from bitwright.search.spdy import Reweighing, reweighed
from bitwright.search.strategy import Predict, Question, Refit, Strategy, Trials, asked, no_trials
from bitwright.search.surface import Surface, surface
from bitwright.search.tied import Tied
from bitwright.search.tiers import tiered, tiered_within, two_tiers
from bitwright.search.trust_region import Region, turbo

__all__ = [
    "Breeding",
    "Course",
    "Expand",
    "Front",
    "Generations",
    "Groups",
    "Hypervolume",
    "InTurn",
    "Knowledge",
    "Learning",
    "Predict",
    "Problem",
    "Question",
    "Refit",
    "Region",
    "Reweighing",
    "Rounds",
    "Row",
    "Solution",
    "Stage",
    "Strategy",
    "Surface",
    "Swaps",
    "Tied",
    "Trials",
    "all_together",
    "asked",
    "at_least",
    "at_most",
    "auto",
    "auto_front",
    "bits_between",
    "by_kind",
    "by_size",
    "clustered",
    "demote",
    "evopress",
    "given",
    "given_in_proportion",
    "hull",
    "hypervolume",
    "layer_budgets",
    "nehvi_front",
    "no_trials",
    "nondominated",
    "nsga2",
    "nsga2_front",
    "predicted_front",
    "promote",
    "quantization",
    "random_front",
    "random_mixes",
    "random_within",
    "require_extra",
    "reweighed",
    "row_prices",
    "scattered",
    "sizes_between",
    "softmax_shares",
    "solve",
    "solve_in_buckets",
    "solve_lagrangian",
    "solve_quadratic",
    "solve_with_rows",
    "sparsity",
    "spread",
    "stratified",
    "super_fast",
    "surface",
    "swaps",
    "taken_in_proportion",
    "tiered",
    "tiered_within",
    "tpe",
    "turbo",
    "two_tiers",
    "unimportance",
    "window",
]
