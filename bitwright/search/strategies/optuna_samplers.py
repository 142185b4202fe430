"""Optuna's NSGA-II and TPE samplers as strategies, with an in-memory study.

NSGA-II: Deb et al., IEEE Transactions on Evolutionary Computation 6, 2002, with constrained domination, as KVTuner (Li et al., ICML 2025,
arXiv 2502.04420) uses it. TPE: Bergstra et al., NeurIPS 2011, multivariate as in Falkner et al., ICML 2018. Optuna: Akiba et al., KDD 2019.

A unit is an integer parameter, its format rank. The size of a choice is known without measuring it, so none above the budget is ever measured:

- NSGA-II is told at once that a choice is infeasible and by how much. Constrained domination compares such choices by that alone, so whole
  generations cost nothing until the population has reached the budget.
- TPE models the choices themselves, and would spend its trials on learning where the budget is. A proposal above it is dropped; random units are
  lowered until it fits, and the result is measured and added to the study instead.

Optuna goes over all trials for each proposal, and so is slow beyond a few thousand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from bitwright.search.solvers.format_ranks import FormatRanks, lowered
from bitwright.search.solvers.instance import room_bits
from bitwright.search.strategies.amq import stratified
from bitwright.search.strategies.extras import extra
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.random_choices import starting
from bitwright.search.strategies.strategy import Strategy, asked
from bitwright.spaces import Choice

_IDLE_GENERATIONS, _IDLE_PROPOSALS = 20, 100  # in a row, of NSGA-II and TPE, without a new choice to measure, after which the search ends


def nsga2(problem: Problem, budget_bits: int, *, n: int, population: int = 50) -> Strategy:
    """Return the strategy of NSGA-II for the least loss within a budget, until `n` choices are asked for or no new ones come.

    With one objective it is a genetic algorithm with constrained domination. The first population has `problem.start` where it fits, else a random
    mix near to uniform.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        LibraryError: Optuna is not installed.
    """
    sampler = extra("optuna").samplers.NSGAIISampler(population_size=population, seed=problem.seed)
    return GeneratorStrategy(problem, _breeding(_Study(problem, budget_bits, sampler, n_objectives=1), n=n, population=population))


def nsga2_front(problem: Problem, budget_bits: int, *, n: int, population: int = 50) -> Strategy:
    """Return the strategy of NSGA-II for the front of loss and size below a budget, until `n` choices are asked for or no new ones come.

    This is how KVTuner uses it, but for the first population: it has `problem.start` and an initial design spread along the size, as far as they
    fit, since uniformly random choices leave the ends of the front empty for hundreds of evaluations. A budget above the largest file searches the
    whole front.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        LibraryError: Optuna is not installed.
    """
    sampler = extra("optuna").samplers.NSGAIISampler(population_size=population, seed=problem.seed)
    first = np.concatenate([starting(problem, budget_bits), stratified(problem.space, population, problem.random())])
    wide = replace(problem, start=first)
    return GeneratorStrategy(problem, _breeding(_Study(wide, budget_bits, sampler, n_objectives=2), n=n, population=population))


def tpe(problem: Problem, budget_bits: int, *, n: int, n_random: int = 10) -> Strategy:
    """Return the strategy of TPE for the least loss within a budget, until `n` choices are asked for or no new ones come.

    `problem.start` is measured first where it fits, else a random mix near to uniform, then random choices until there are `n_random` in all.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        LibraryError: Optuna is not installed.
    """
    sampler = extra("optuna").samplers.TPESampler(n_startup_trials=n_random, seed=problem.seed)
    return GeneratorStrategy(problem, _estimating(_Study(problem, budget_bits, sampler, n_objectives=1), n=n))


class _Study:
    """Optuna study of a problem: its objectives are the loss in nats/token and, where there are two, bits per weight.

    Its one constraint is the excess over the budget in bits per weight. It remembers the loss of every measured choice.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """

    def __init__(self, problem: Problem, budget_bits: int, sampler: object, *, n_objectives: int) -> None:
        self._optuna, self.problem, self._n_objectives = extra("optuna"), problem, n_objectives
        self.format_ranks, self.room = FormatRanks(problem.space), room_bits(problem.space, budget_bits)
        self._distributions = {str(unit): self._optuna.distributions.IntDistribution(0, int(top)) for unit, top in enumerate(self.format_ranks.top)}
        self.losses: dict[bytes, float] = {}
        with _quiet(self._optuna):
            self._study = self._optuna.create_study(sampler=sampler, directions=["minimize"] * n_objectives)
            for choice in starting(problem, budget_bits):
                self._study.enqueue_trial(self._params(choice))

    def proposal(self) -> tuple[Any, Choice]:
        """Ask Optuna for a trial and return it with its choice `(n_units,)`."""
        trial = self._study.ask(self._distributions)
        return trial, self.format_ranks.choices(np.array([trial.params[unit] for unit in self._distributions], dtype=np.int64))

    def excess(self, choice: Choice) -> int:
        """Return the bits above the budget, 0 or less where the choice fits."""
        return int(self.format_ranks.spent(self.format_ranks.ranks(choice))) - self.room

    def finish(self, trial: Any, choice: Choice) -> None:
        """Tell Optuna the values of a trial: its loss, or that it is infeasible where it exceeds the budget."""
        excess = self.excess(choice)
        trial.set_constraint("bits per weight", excess / self.problem.space.n_weights)
        self._study.tell(trial, self._values(choice, 0.0 if excess > 0 else self.losses[choice.tobytes()]))

    def drop(self, trial: Any) -> None:
        """Tell Optuna that a trial failed, so that it learns nothing from it."""
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def add(self, choice: Choice) -> None:
        """Add a measured choice that Optuna did not propose as a completed trial."""
        values = self._values(choice, self.losses[choice.tobytes()])
        self._study.add_trial(self._optuna.trial.create_trial(values=values, params=self._params(choice), distributions=self._distributions))

    def _params(self, choice: Choice) -> dict[str, int]:
        return {str(unit): int(rank) for unit, rank in enumerate(self.format_ranks.ranks(choice))}

    def _values(self, choice: Choice, loss: float) -> list[float]:
        return [loss, self.problem.space.bits_per_weight(choice)][: self._n_objectives]

    def measured(self, choices: list[Choice], *, n: int) -> Asking:
        """Ask for the `choices` not yet measured, up to `n` in all, and remember their losses."""
        new = {choice.tobytes(): choice for choice in choices if choice.tobytes() not in self.losses}
        if new:
            trials = yield asked(np.stack([*new.values()])[: n - len(self.losses)], self.problem.n_sequences)
            self.losses |= {choice.tobytes(): float(value) for choice, value in zip(trials.choices, trials.values[:, 0], strict=True)}


def _breeding(study: _Study, *, n: int, population: int) -> Asking:
    """Run NSGA-II: of each generation of proposals, measure the new ones that fit."""
    idle = 0
    while len(study.losses) < n and idle < _IDLE_GENERATIONS:
        n_before, proposals = len(study.losses), [study.proposal() for _ in range(population)]
        yield from study.measured([choice for _, choice in proposals if study.excess(choice) <= 0], n=n)
        for trial, choice in proposals:
            if study.excess(choice) > 0 or choice.tobytes() in study.losses:
                study.finish(trial, choice)
            else:
                study.drop(trial)
        idle = idle + 1 if len(study.losses) == n_before else 0


def _estimating(study: _Study, *, n: int) -> Asking:
    """Run TPE: measure one proposal after the other, lowered until it fits."""
    rng, idle = study.problem.random(), 0
    while len(study.losses) < n and idle < _IDLE_PROPOSALS:
        n_before, (trial, proposed) = len(study.losses), study.proposal()
        choice = study.format_ranks.choices(lowered(study.format_ranks, study.format_ranks.ranks(proposed), study.room, rng))
        yield from study.measured([choice], n=n)
        if study.excess(proposed) <= 0 and choice.tobytes() in study.losses:
            study.finish(trial, choice)
        else:
            study.drop(trial)
            if choice.tobytes() in study.losses:
                study.add(choice)
        idle = idle + 1 if len(study.losses) == n_before else 0


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Silence Optuna's message on every new study; restore its verbosity afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
