"""Random search: the baseline that any search must beat.

Uniformly random choices are a poor baseline where one format is far worse than the others, since nearly all of them use it somewhere. Random mixes of
the two uniform allocations nearest to a budget are the usual baseline of the field.
"""

from itertools import chain, islice

import numpy as np

from bitwright.search.solvers.asked_choices import Draw, Seen
from bitwright.search.solvers.format_ranks import FormatRanks, RankArray, lowered, raised, random_ranks
from bitwright.search.solvers.instance import room_bits
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Strategy, asked
from bitwright.spaces import Choice, Choices, Space

_ASKED_AT_ONCE = 8


def random_within(problem: Problem, budget_bits: int, *, n: int) -> Strategy:
    """Return the strategy of `problem.start` where it fits, then random choices that use up the budget, until `n` are asked for or no new ones come.

    A choice is drawn with its expected size at the budget, all of one size equally likely (see `random_ranks`); random units are then
    lowered until it fits, and raised until nothing more does.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    format_ranks, room = FormatRanks(problem.space), room_bits(problem.space, budget_bits)
    return GeneratorStrategy(
        problem, _asking(problem, problem.start_within(budget_bits), draw=lambda rng: format_ranks.choices(filled(format_ranks, room, rng)), n=n)
    )


def random_front(problem: Problem, *, n: int) -> Strategy:
    """Return the strategy of `problem.start`, then random choices evenly spread over all sizes, until `n` are asked for or no new ones come."""
    format_ranks = FormatRanks(problem.space)
    most = int(format_ranks.spent(format_ranks.top))
    return GeneratorStrategy(
        problem,
        _asking(problem, problem.start, draw=lambda rng: format_ranks.choices(random_ranks(format_ranks, rng.uniform(0, most), 1, rng)[0]), n=n),
    )


def random_mixes(problem: Problem, budget_bits: int, *, n: int) -> Strategy:
    """Return the strategy of `problem.start` where it fits, then random mixes of two formats, until `n` are asked for or no new ones come.

    The formats are those of the largest uniform allocation that fits and of the next larger one; units take the larger in random order wherever it
    still fits.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    return GeneratorStrategy(problem, _asking(problem, problem.start_within(budget_bits), draw=mixing(problem.space, budget_bits), n=n))


def starting(problem: Problem, budget_bits: int) -> Choices:
    """Return the choices of `problem.start` that fit, or where none does one random mix of two formats `(n, n_units)`; see `random_mixes`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    start = problem.start_within(budget_bits)
    return start if len(start) else mixing(problem.space, budget_bits)(problem.random())[None]


def filled(format_ranks: FormatRanks, room: int, rng: np.random.Generator) -> RankArray:
    """Draw random ranks `(n_units,)` that use up `room` bits."""
    return raised(format_ranks, lowered(format_ranks, random_ranks(format_ranks, room, 1, rng)[0], room, rng), room, rng)


def mixing(space: Space, budget_bits: int) -> Draw:
    """Return a function that draws random mixes of the two uniform allocations on either side of a budget; see `random_mixes`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    room_bits(space, budget_bits)
    uniforms = np.stack([space.smallest(), *(space.uniform(space.formats[f]) for f in np.flatnonzero(space.offered.any(axis=0)))])
    uniforms = uniforms[np.argsort(space.total_bits(uniforms), kind="stable")]
    n_fit = int((space.total_bits(uniforms) <= budget_bits).sum())
    lower, upper = uniforms[n_fit - 1], uniforms[min(n_fit, len(uniforms) - 1)]
    units = np.arange(len(lower))
    added = space.size_bits[units, upper] - space.size_bits[units, lower]  # (n_units,)

    def draw(rng: np.random.Generator) -> Choice:
        choice: Choice = lower.copy()
        left = budget_bits - int(space.total_bits(lower))
        for unit in rng.permutation(len(lower)):
            if added[unit] <= left:
                choice[unit] = upper[unit]
                left -= int(added[unit])
        return choice

    return draw


def _asking(problem: Problem, start: Choices, *, draw: Draw, n: int) -> Asking:
    seen = Seen()
    choices = islice(chain(seen.new(start), seen.drawn(draw, problem.random())), n)
    while batch := list(islice(choices, _ASKED_AT_ONCE)):
        yield asked(np.stack(batch), problem.n_sequences)
