"""Search for a plan: exact solvers of a sensitivity table, ask/tell strategies that measure plans, and Pareto fronts."""

from bitwright.search.solvers.buckets import solve_in_buckets
from bitwright.search.solvers.composite import Options, combined, either, nondominated_of, one_decision, solve_composite
from bitwright.search.solvers.constrained import solve_with_rows
from bitwright.search.solvers.constraints import Row, at_least, bits_between
from bitwright.search.solvers.front import Front, hull, hypervolume, nondominated, spread
from bitwright.search.solvers.greedy import demote, promote
from bitwright.search.solvers.knapsack import solve
from bitwright.search.solvers.lagrangian import solve_lagrangian
from bitwright.search.solvers.proportional import inverse_importance, proportional_reduction
from bitwright.search.solvers.quadratic import solve_quadratic
from bitwright.search.solvers.reduced_costs import within_reach
from bitwright.search.solvers.second_limit import Priced, solve_priced
from bitwright.search.solvers.solution import Solution
from bitwright.search.solvers.surface import surface
from bitwright.search.solvers.tiers import tiered_within, two_tiers
from bitwright.search.strategies.amq import Rounds, clustered, predicted_front
from bitwright.search.strategies.auto import auto, auto_front
from bitwright.search.strategies.bayesian import NehviOptions, nehvi_front
from bitwright.search.strategies.evolution import evopress, quantization, sparsity
from bitwright.search.strategies.extras import require_extra
from bitwright.search.strategies.fixed import given
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.local_search import LocalSearchOptions, swaps
from bitwright.search.strategies.neighbours import Neighbourhood, all_together
from bitwright.search.strategies.optuna_samplers import nsga2, nsga2_front, tpe
from bitwright.search.strategies.problem import Expand, Problem
from bitwright.search.strategies.random_choices import random_front, random_mixes, random_within, starting
from bitwright.search.strategies.relaxed import RelaxedOptions, relaxed
from bitwright.search.strategies.scattered import scattered, sizes_between
from bitwright.search.strategies.sequential import SequentialStrategy
from bitwright.search.strategies.spdy import SpdyOptions, spdy_search
from bitwright.search.strategies.strategy import Predict, Question, Refit, Strategy, Trials, asked, no_trials
from bitwright.search.strategies.surrogate import Learning
from bitwright.search.strategies.tied import Tied
from bitwright.search.strategies.trust_region import TrustRegionOptions, turbo

__all__ = [
    "Asking",
    "Expand",
    "Front",
    "GeneratorStrategy",
    "Learning",
    "LocalSearchOptions",
    "NehviOptions",
    "Neighbourhood",
    "Options",
    "Predict",
    "Priced",
    "Problem",
    "Question",
    "Refit",
    "RelaxedOptions",
    "Rounds",
    "Row",
    "SequentialStrategy",
    "Solution",
    "SpdyOptions",
    "Strategy",
    "Tied",
    "Trials",
    "TrustRegionOptions",
    "all_together",
    "asked",
    "at_least",
    "auto",
    "auto_front",
    "bits_between",
    "clustered",
    "combined",
    "demote",
    "either",
    "evopress",
    "given",
    "hull",
    "hypervolume",
    "inverse_importance",
    "nehvi_front",
    "no_trials",
    "nondominated",
    "nondominated_of",
    "nsga2",
    "nsga2_front",
    "one_decision",
    "predicted_front",
    "promote",
    "proportional_reduction",
    "quantization",
    "random_front",
    "random_mixes",
    "random_within",
    "relaxed",
    "require_extra",
    "scattered",
    "sizes_between",
    "solve",
    "solve_composite",
    "solve_in_buckets",
    "solve_lagrangian",
    "solve_priced",
    "solve_quadratic",
    "solve_with_rows",
    "sparsity",
    "spdy_search",
    "spread",
    "starting",
    "surface",
    "swaps",
    "tiered_within",
    "tpe",
    "turbo",
    "two_tiers",
    "within_reach",
]
