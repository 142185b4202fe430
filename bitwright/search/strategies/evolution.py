"""EvoPress: evolutionary search with one parent and size-preserving mutations; offspring are selected in stages on more and more text.

EvoPress (Sieberling et al., "EvoPress: Accurate Dynamic Model Compression via Evolutionary Search", ICML 2025, arXiv 2410.14649). What differs: all
choices are measured on the same first sequences instead of newly drawn ones, so that differences are paired and a parent need not be measured again;
in the last stage an offspring that is clearly worse than the parent may be stopped early; the search starts from the best of the problem's starting
choices, else from a random mix of the two uniform allocations nearest to the budget. Selection on too little text overfits it: an independent
reproduction found twenty generations on TinyLlama worse than uniform.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.strategies.generator_strategy import Asking, Course, Problem
from bitwright.search.strategies.neighbours import Groups, Neighbourhood, by_size
from bitwright.search.strategies.random_choices import starting
from bitwright.search.strategies.strategy import Question, Strategy, Trials, asked
from bitwright.search.strategies.surrogate import Incumbent
from bitwright.spaces import Choice, Choices


@dataclass(frozen=True)
class Stage:
    """Selection stage: the best `n_survivors`, measured on `n_sequences` sequences, survive."""

    n_survivors: int
    n_sequences: int


@dataclass(frozen=True)
class Generations:
    """Hyperparameters: generations, offspring per generation, the stages of selection, and the groups within which units exchange bits.

    The one survivor of the last stage competes with the parent.
    """

    n_generations: int
    n_offspring: int
    stages: tuple[Stage, ...]
    groups: Groups = by_size

    def __post_init__(self) -> None:
        if not self.stages or self.stages[-1].n_survivors != 1:
            raise ValueError("a generation is selected in one or more stages, of which the last has one survivor")


def quantization(sequence_length: int) -> Generations:
    """Return the published setting for quantization, for sequences of `sequence_length` tokens; 22,350 evaluations on 177 million tokens."""
    return Generations(150, 128, _stages((16, 4, 1), (2_048, 16_384, 131_072), sequence_length))


def super_fast(sequence_length: int) -> Generations:
    """Return the published setting "super-fast", for sequences of `sequence_length` tokens."""
    return Generations(400, 16, _stages((1, 1), (512, 8_192), sequence_length))


def sparsity(sequence_length: int) -> Generations:
    """Return the published setting for unstructured sparsity, for sequences of `sequence_length` tokens."""
    return Generations(400, 64, _stages((8, 2, 1), (2_048, 16_384, 65_536), sequence_length))


def _stages(n_survivors: tuple[int, ...], n_tokens: tuple[int, ...], sequence_length: int) -> tuple[Stage, ...]:
    return tuple(Stage(n, -(-tokens // sequence_length)) for n, tokens in zip(n_survivors, n_tokens, strict=True))


def evopress(problem: Problem, budget_bits: int, generations: Generations) -> Strategy:
    """Return the strategy of EvoPress within a budget, from the best of `problem.start` that fits, or from a random mix near to uniform.

    A stage measures on no more than `problem.n_sequences` sequences. The search ends after the last generation, or when no mutation of the parent is
    left that differs from it.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    near = Neighbourhood(problem.space, budget_bits, generations.groups)
    return Course(problem, _asking(problem, generations, near, starting(problem, budget_bits)))


def _asking(problem: Problem, generations: Generations, near: Neighbourhood, start: Choices) -> Asking:
    rng = problem.random()
    stages = tuple(Stage(stage.n_survivors, min(stage.n_sequences, problem.n_sequences)) for stage in generations.stages)
    n_sequences = stages[-1].n_sequences
    parent = Incumbent(start[0], np.inf).after((yield asked(start, n_sequences)), n_sequences)
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
