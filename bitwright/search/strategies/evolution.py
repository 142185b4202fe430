"""EvoPress: evolutionary search with one parent and size-preserving mutations; offspring are selected in stages on more and more text.

EvoPress (Sieberling et al., "EvoPress: Accurate Dynamic Model Compression via Evolutionary Search", ICML 2025, arXiv 2410.14649). What differs: all
measure on the same first sequences instead of newly drawn ones, so that differences are paired and a parent need not be measured again; in the last
stage an offspring that is clearly worse than the parent may be stopped early. The first parent is the published one: the uniform allocation where
that is at the budget, else the best of random ones at it, each made of the next larger uniform allocation by lowering random units a level until it
fits. Their number is not published for quantization; here it is that of the first stage's survivors. Selection on too little text overfits it: an
independent reproduction found twenty generations on TinyLlama worse than uniform.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.format_ranks import FormatRanks, lowered
from bitwright.search.solvers.instance import room_bits
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.neighbours import Groups, Neighbourhood, by_size
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Question, Strategy, Trials, asked
from bitwright.search.strategies.surrogate import Incumbent
from bitwright.spaces import Choice, Choices, Space


@dataclass(frozen=True)
class Stage:
    """Selection stage: the best `n_survivors`, measured on `n_sequences` sequences, survive."""

    n_survivors: int
    n_sequences: int


@dataclass(frozen=True)
class EvoPressOptions:
    """Hyperparameters: generations, offspring per generation, the stages of selection, and the groups within which units exchange bits.

    The one survivor of the last stage competes with the parent. The first parent is the best of `n_initial` on the text of the first stage.
    """

    n_generations: int
    n_offspring: int
    stages: tuple[Stage, ...]
    groups: Groups = by_size
    n_initial: int = 16

    def __post_init__(self) -> None:
        if not self.stages or self.stages[-1].n_survivors != 1:
            raise ValueError("a generation is selected in one or more stages, of which the last has one survivor")


def quantization(sequence_length: int) -> EvoPressOptions:
    """Return the published setting for quantization, for sequences of `sequence_length` tokens; 22,350 evaluations on 177 million tokens."""
    return EvoPressOptions(150, 128, _stages((16, 4, 1), (2_048, 16_384, 131_072), sequence_length))


def super_fast(sequence_length: int) -> EvoPressOptions:
    """Return the published setting "super-fast", for sequences of `sequence_length` tokens."""
    return EvoPressOptions(400, 16, _stages((1, 1), (512, 8_192), sequence_length))


def sparsity(sequence_length: int) -> EvoPressOptions:
    """Return the published setting for unstructured sparsity, for sequences of `sequence_length` tokens."""
    return EvoPressOptions(400, 64, _stages((8, 2, 1), (2_048, 16_384, 65_536), sequence_length))


def _stages(n_survivors: tuple[int, ...], n_tokens: tuple[int, ...], sequence_length: int) -> tuple[Stage, ...]:
    return tuple(Stage(n, -(-tokens // sequence_length)) for n, tokens in zip(n_survivors, n_tokens, strict=True))


def evopress(problem: Problem, budget_bits: int, generations: EvoPressOptions) -> Strategy:
    """Evolution within a budget, from the best of `problem.start` that fits, or from the best of random allocations at the budget.

    A stage measures on no more than `problem.n_sequences` sequences. The search ends after the last generation, or when no mutation of the parent is
    left that differs from it.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    near = Neighbourhood(problem.space, budget_bits, generations.groups)
    rng, start = problem.random(), problem.start_within(budget_bits)
    stages = tuple(Stage(stage.n_survivors, min(stage.n_sequences, problem.n_sequences)) for stage in generations.stages)
    drawn = at_budget(problem.space, budget_bits, generations.n_initial, rng) if not len(start) else start
    first = asked(drawn, stages[-1 if len(start) or len(drawn) == 1 else 0].n_sequences)
    return GeneratorStrategy(problem, _asking(near, replace(generations, stages=stages), first, rng))


def at_budget(space: Space, budget_bits: int, n: int, rng: np.random.Generator) -> Choices:
    """Return at most `n` random allocations `(n, n_units)` at the budget: the smallest larger uniform allocation with random units lowered a level
    until it fits; or the uniform allocation alone, if none of its units could be larger within the budget.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    rungs, room = FormatRanks(space), room_bits(space, budget_bits)
    uniforms = np.stack([space.uniform(space.formats[form]) for form in np.flatnonzero(space.offered.any(axis=0))])
    heights = rungs.ranks(uniforms[np.argsort(space.total_bits(uniforms), kind="stable")])
    spent = rungs.spent(heights)
    fitting, larger = heights[spent <= room], heights[spent > room]
    if len(fitting) and (rungs.step_up(fitting[-1]) > room - spent[len(fitting) - 1]).all():
        return rungs.choices(fitting[-1:])
    above = larger[0] if len(larger) else rungs.top
    return Seen().new(np.stack([rungs.choices(lowered(rungs, above, room, rng)) for _ in range(n)]))


def _asking(near: Neighbourhood, generations: EvoPressOptions, first: Question, rng: np.random.Generator) -> Asking:
    stages, n_sequences = generations.stages, generations.stages[-1].n_sequences
    trials = yield first
    if first.n_sequences < n_sequences and len(trials):
        trials = yield asked(trials.choices[[trials.values[:, 0].argmin()]], n_sequences)
    parent = Incumbent(first.choices[0], np.inf).after(trials, n_sequences)
    for _ in range(generations.n_generations):
        offspring = _offspring(near, parent.choice, generations.n_offspring, rng)
        if not len(offspring):
            return
        parent = parent.after((yield from _selection(stages, offspring, parent.choice)), n_sequences)


def _offspring(near: Neighbourhood, parent: Choice, n: int, rng: np.random.Generator) -> Choices:
    """Return at most `n` different mutations of a parent, none of them the parent: `(n, n_units)`."""
    seen = Seen()
    seen.new(parent[None])
    return np.array([*islice(seen.drawn(lambda rng: near.mutated(parent, rng), rng), n)], dtype=np.int64)


def _selection(stages: tuple[Stage, ...], offspring: Choices, parent: Choice) -> Generator[Question, Trials, Trials]:
    """Run the stages of selection and return the trials of the last one."""
    *early, last = stages
    for stage in early:
        trials = yield asked(offspring, stage.n_sequences)
        best = np.argsort(trials.values[:, 0], kind="stable")[: stage.n_survivors]
        offspring = trials.choices[best] if len(best) else offspring[: stage.n_survivors]
    return (yield Question(offspring, last.n_sequences, against=parent[None]))
