"""AMQ: search for the whole front with a predictor. Measure an initial design, fit, run NSGA-II on the prediction, measure some of its front, repeat.

AMQ (Lee et al., "AMQ: Enabling AutoML for Mixed-precision Weight-Only Quantization of Large Language Models", EMNLP 2025, arXiv 2509.12019). What
differs from the published code: genes mutate one by one (see `genetic`); the choices to measure are the most evenly spaced ones, found exactly (see
`spacing`); and the initial design is spread along the size unless `clustered` is asked for, whose choices nearly all lie around the mean format.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.format_draws import drawn_by_format
from bitwright.search.solvers.format_ranks import FormatRanks, random_ranks
from bitwright.search.solvers.front import nondominated
from bitwright.search.solvers.spacing import evenly_spaced
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.genetic import Breeding, Evaluate, bred
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Predict, Refit, Strategy, Trials, asked
from bitwright.spaces import Choices, Space

#: a space, a number of choices and a random generator -> an initial design of choices to measure `(n, n_units)`
Design = Callable[[Space, int, np.random.Generator], Choices]

_DRAWS = 100  # attempts of a design, after which the space counts as exhausted


def stratified(space: Space, n: int, rng: np.random.Generator) -> Choices:
    """Return a stratified initial design `(n, n_units)`: the uniform allocations, and one random choice for each of equal strata of the size."""
    format_ranks = FormatRanks(space)
    most = float(format_ranks.spent(format_ranks.top))

    def draw(n_drawn: int) -> Choices:
        targets = (np.arange(n_drawn) + rng.random(n_drawn)) / n_drawn * most
        return np.concatenate([format_ranks.choices(random_ranks(format_ranks, target, 1, rng)) for target in targets])

    return _with_uniforms(space, n, draw)


def clustered(space: Space, n: int, rng: np.random.Generator) -> Choices:
    """Return AMQ's initial design `(n, n_units)`: the uniform allocations, and choices with the same random format probabilities for every unit.

    The probabilities are uniform random numbers over their sum, so most choices mix all formats about equally. Fewer where the space has fewer.
    """

    def draw(n_drawn: int) -> Choices:
        shares = drawn_by_format(space, lambda n_formats: rng.random((n_drawn, 1, n_formats))) * space.offered  # (n_drawn, n_units, n_formats)
        cumulative = np.cumsum(shares, axis=2)
        choices: Choices = (rng.random((*cumulative.shape[:2], 1)) * cumulative[..., -1:] >= cumulative).sum(axis=2)
        return choices

    return _with_uniforms(space, n, draw)


def _with_uniforms(space: Space, n: int, draw: Callable[[int], Choices]) -> Choices:
    """Return `n` different choices, the uniform ones and draws; fewer where a hundred draws do not bring enough."""
    seen = Seen()
    choices = seen.new(np.stack([space.uniform(space.formats[form]) for form in np.flatnonzero(space.offered.any(axis=0))]))
    for _ in range(_DRAWS):
        if len(choices) < n:
            choices = np.concatenate([choices, seen.new(draw(n - len(choices)))])
    return choices[:n]


@dataclass(frozen=True)
class Rounds:
    """Hyperparameters, by default AMQ's 10,250 evaluations: `n_first` choices of the initial `design`, then `n_rounds` times `n_each`."""

    n_first: int = 250
    n_rounds: int = 200
    n_each: int = 50
    design: Design = stratified
    breeding: Breeding = field(default_factory=Breeding)


def predicted_front(problem: Problem, refit: Refit, rounds: Rounds) -> Strategy:
    """Return the strategy that searches for the front of loss and size, from `problem.start` and an initial design.

    `refit` fits the predictor to all measurements, once a round; a round in which NSGA-II finds nothing new measures nothing. Exceptions of `refit`
    are raised by `ask`.
    """
    return GeneratorStrategy(problem, _asking(problem, refit, rounds))


def _asking(problem: Problem, refit: Refit, rounds: Rounds) -> Asking:
    rng, seen, format_ranks = problem.random(), Seen(), FormatRanks(problem.space)
    first = np.concatenate([problem.start, rounds.design(problem.space, rounds.n_first, rng)])
    known = yield asked(seen.new(first), problem.n_sequences)
    for _ in range(rounds.n_rounds if len(known) else 0):
        front = _front(problem.space, known)
        evaluate = _prediction(format_ranks, refit(known.choices, known.values[:, 0], known.errors[:, 0]))
        members = format_ranks.choices(bred(format_ranks.ranks(front), format_ranks.top, evaluate, breeding=rounds.breeding, rng=rng))
        picks = _picked(problem.space, front, members[seen.lacks(members)], rounds.n_each)
        if len(picks):
            known = known.joined((yield asked(seen.new(picks), problem.n_sequences)))


def _front(space: Space, known: Trials) -> Choices:
    """Return the choices that are nondominated in size and measured loss."""
    return known.choices[nondominated(np.column_stack([space.total_bits(known.choices), known.values[:, 0]]))]


def _prediction(format_ranks: FormatRanks, predict: Predict) -> Evaluate:
    return lambda ranks: np.column_stack([predict(format_ranks.choices(ranks))[0], format_ranks.spent(ranks)])


def _picked(space: Space, front: Choices, members: Choices, n: int) -> Choices:
    """Return the `n` of `members` whose sizes are most evenly spaced between those of the front."""
    return members[evenly_spaced(space.total_bits(front).astype(np.float64), space.total_bits(members).astype(np.float64), n)]
