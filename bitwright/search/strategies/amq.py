"""The front by prediction: measure a first design, learn, breed a front of the prediction, measure some of it spread along the size, and again.

AMQ (Lee et al., "AMQ: Enabling AutoML for Mixed-precision Weight-Only Quantization of Large Language Models", EMNLP 2025, arXiv 2509.12019). What
differs from the published code: genes mutate one by one (see `genetic`); the picks are the most even ones exactly (see `spacing`); and the first
design is spread along the size unless `clustered` is asked for, whose choices nearly all lie around the mean format.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.front import nondominated
from bitwright.search.solvers.rungs import Rungs, drawn
from bitwright.search.solvers.spacing import evenly_spaced
from bitwright.search.strategies.generator_strategy import Asking, Course, Problem
from bitwright.search.strategies.genetic import Breeding, Evaluate, bred
from bitwright.search.strategies.strategy import Predict, Refit, Strategy, Trials, asked
from bitwright.spaces import Choices, Space

#: a space, how many choices, and randomness -> choices to measure before anything is learnt `(n, n_units)`
Design = Callable[[Space, int, np.random.Generator], Choices]

_DRAWS = 100  # of a design, after which it has no other choices


def stratified(space: Space, n: int, rng: np.random.Generator) -> Choices:
    """The uniform allocations, and random choices of which each has its own share of the range of sizes `(n, n_units)`, or all there are."""
    rungs = Rungs(space)
    most = float(rungs.spent(rungs.top))

    def draw(n_drawn: int) -> Choices:
        targets = (np.arange(n_drawn) + rng.random(n_drawn)) / n_drawn * most
        return np.concatenate([rungs.choices(drawn(rungs, target, 1, rng)) for target in targets])

    return _with_uniforms(space, n, draw)


def clustered(space: Space, n: int, rng: np.random.Generator) -> Choices:
    """AMQ's design: the uniform allocations, and choices whose every unit is drawn with the same random probabilities of the formats `(n, n_units)`.

    The probabilities are uniform numbers over their sum, so most choices mix all formats about equally. They are fewer if there are not so many.
    """

    def draw(n_drawn: int) -> Choices:
        shares = rng.random((n_drawn, 1, len(space.formats))) * space.offered  # (n_drawn, n_units, n_formats)
        cumulative = np.cumsum(shares, axis=2)
        choices: Choices = (rng.random((*cumulative.shape[:2], 1)) * cumulative[..., -1:] >= cumulative).sum(axis=2)
        return choices

    return _with_uniforms(space, n, draw)


def _with_uniforms(space: Space, n: int, draw: Callable[[int], Choices]) -> Choices:
    """`n` different choices: the uniform ones and what is drawn, as often as it takes, but not for ever."""
    seen = Seen()
    choices = seen.new(np.stack([space.uniform(space.formats[form]) for form in np.flatnonzero(space.offered.any(axis=0))]))
    for _ in range(_DRAWS):
        if len(choices) < n:
            choices = np.concatenate([choices, seen.new(draw(n - len(choices)))])
    return choices[:n]


@dataclass(frozen=True)
class Rounds:
    """The numbers of the loop, by default AMQ's 10,250 evaluations: `n_first` choices of a `design`, then `n_rounds` times `n_each`."""

    n_first: int = 250
    n_rounds: int = 200
    n_each: int = 50
    design: Design = stratified
    breeding: Breeding = field(default_factory=Breeding)


def predicted_front(problem: Problem, refit: Refit, rounds: Rounds) -> Strategy:
    """The front of loss and size, from `problem.start` and a first design.

    `refit` learns from everything that was measured, once a round; a round in which nothing new is bred measures nothing. What `refit` raises
    comes out of `ask`.
    """
    return Course(problem, _asking(problem, refit, rounds))


def _asking(problem: Problem, refit: Refit, rounds: Rounds) -> Asking:
    rng, seen, rungs = problem.random(), Seen(), Rungs(problem.space)
    first = np.concatenate([problem.start, rounds.design(problem.space, rounds.n_first, rng)])
    known = yield asked(seen.new(first), problem.n_sequences)
    for _ in range(rounds.n_rounds if len(known) else 0):
        front = _front(problem.space, known)
        evaluate = _prediction(rungs, refit(known.choices, known.values[:, 0], known.errors[:, 0]))
        members = rungs.choices(bred(rungs.of(front), rungs.top, evaluate, breeding=rounds.breeding, rng=rng))
        picks = _picked(problem.space, front, members[seen.lacks(members)], rounds.n_each)
        if len(picks):
            known = known.joined((yield asked(seen.new(picks), problem.n_sequences)))


def _front(space: Space, known: Trials) -> Choices:
    """What no other beats in size and measured loss."""
    return known.choices[nondominated(np.column_stack([space.total_bits(known.choices), known.values[:, 0]]))]


def _prediction(rungs: Rungs, predict: Predict) -> Evaluate:
    return lambda heights: np.column_stack([predict(rungs.choices(heights))[0], rungs.spent(heights)])


def _picked(space: Space, front: Choices, members: Choices, n: int) -> Choices:
    """The `n` of `members` whose sizes lie most evenly between those of the front."""
    return members[evenly_spaced(space.total_bits(front).astype(np.float64), space.total_bits(members).astype(np.float64), n)]
