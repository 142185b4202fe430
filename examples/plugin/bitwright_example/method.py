"""Simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 1983): a worse neighbour is accepted with probability e^(−Δ/T), T falling."""

import numpy as np

from bitwright.methods import Method, evenly_spaced_budgets
from bitwright.objectives import KullbackLeibler
from bitwright.search import Asking, GeneratorStrategy, Neighbourhood, Problem, SequentialStrategy, Strategy, all_together, asked, starting


def annealing(problem: Problem, budget_bits: int) -> Strategy:
    """Return the strategy within a budget."""
    near = Neighbourhood(problem.space, budget_bits, all_together)
    return GeneratorStrategy(problem, _asking(problem, near, starting(problem, budget_bits)))


def _asking(problem: Problem, near: Neighbourhood, start: np.ndarray) -> Asking:
    rng, temperature = problem.random(), 0.5  # of logarithms of the divergence
    trials = yield asked(start, problem.n_sequences)
    current, level, seen = start[0], np.inf, {choice.tobytes() for choice in start}
    while True:
        for choice, value in zip(trials.choices, np.log(np.maximum(trials.values[:, 0], 1e-12)), strict=True):
            if value < level or rng.random() < np.exp((level - value) / temperature):
                current, level = choice, value
        mutations = (near.mutated(current, rng) for _ in range(200))
        new = next((choice for choice in mutations if choice.tobytes() not in seen), None)
        if new is None:
            return
        seen.add(new.tobytes())
        temperature *= 0.97
        trials = yield asked(new[None], problem.n_sequences)


def along(problem: Problem, n_points: int) -> Strategy:
    """Return the strategy along the front: one annealing for each budget."""
    return SequentialStrategy(annealing(problem.unstarted, bits) for bits in evenly_spaced_budgets(problem, n_points))


ANNEALING = Method("annealing", "Kirkpatrick et al., 1983", "", KullbackLeibler(), annealing, along)
