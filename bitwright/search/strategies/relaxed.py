"""Differentiable allocation: probabilities of formats for every unit, descended by the gradient of the divergence of the mixed weights.

    minimise over P   D(Σ_f P_uf W_uf) - T Σ_u H(P_u)   with   Σ P · bits ≤ budget

D is the divergence of the model whose weights are the mixtures, on a few sequences a step, in another order each time; H is the entropy. With A a
moving average of the slopes ∂D/∂P, a step solves the problem whose D is linear: P_uf ∝ exp(-(A_uf + λ bits_uf) / T), the multiplier λ of the bits
exact by bisection, since they are linear in P. T falls geometrically, so that mixtures end as choices: deterministic annealing (Rose, Proceedings of
the IEEE 86, 1998), in the family of DNAS (Wu et al., arXiv 1812.00090), CSQ (Xiao et al., DAC 2023) and GETA (Qu et al., CVPR 2025). Those train
weights too, and logits by Adam with a penalty for the bits, which with an augmented Lagrangian froze at worse choices here (docs/methods.md).

After every round the most probable choice within the budget, an exact knapsack of -log P, is measured; where it was measured before, one drawn from P
within the budget by Gumbel noise on log P is (perturb and MAP, Papandreou & Yuille, ICCV 2011).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.format_draws import drawn_by_format
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Mix, Problem, Table
from bitwright.search.strategies.strategy import Question, Strategy, Trials, asked
from bitwright.spaces import Choice, Choices, Space

_DRAWS = 4  # draws without a new choice, after which a round measures none
_LEAST = 1e-2  # probability that a format keeps in a draw
_DEAREST = 1e12  # price of all bits, in nats/token, at which every unit has its smallest format


@dataclass(frozen=True)
class RelaxedOptions:
    """Hyperparameters: a descent has `n_rounds` of `n_steps`, each on `n_sequences`. The temperature falls from `warm` to `cold`, in units of the
    mixture's divergence over the number of units. `fresh` is the share of the newest slopes in their moving average.
    """

    n_rounds: int = 12
    n_steps: int = 6
    n_sequences: int = 8
    warm: float = 1.0
    cold: float = 0.03
    fresh: float = 0.3


def relaxed(problem: Problem, budget_bits: int, *, table: Table, mix: Mix, options: RelaxedOptions) -> Strategy:
    """Return the strategy of differentiable allocation within a budget; it measures `problem.start` where it fits and the optimum of `table`
    `(n_units, n_formats)` first. Each step costs one call of `mix`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space, or is not finite where a format is offered.
    """
    checked_table(problem.space, table)
    room_bits(problem.space, budget_bits)
    return GeneratorStrategy(problem, _asking(problem, budget_bits, _Relaxation(problem, budget_bits, mix, options), table))


def _asking(problem: Problem, budget_bits: int, relaxation: "_Relaxation", table: Table) -> Asking:
    seen, rng = Seen(), problem.random()
    optimum = solve(problem.space, table, budget_bits).choice
    known = yield asked(seen.new(np.concatenate([problem.start_within(budget_bits), optimum[None]])), problem.n_sequences)
    n_before = -1
    while len(known) > n_before:
        n_before, descent = len(known), relaxation.begun(_best(known, optimum), rng)
        for temperature in relaxation.temperatures:
            relaxation.descend(descent, temperature)
            new = relaxation.rounded(descent.shares, seen, rng)
            if len(new):
                best = _best(known, new[0])[None] if len(known) else new[:0]
                known = known.joined((yield Question(new, problem.n_sequences, best)))


def _best(known: Trials, otherwise: Choice) -> Choice:
    """Return the choice of least divergence among those measured in full, `otherwise` if there is none."""
    full = known.only(known.n_sequences == known.n_sequences.max(initial=0))
    best: Choice = full.choices[full.values[:, 0].argmin()] if len(full) else otherwise
    return best


@dataclass(eq=False)
class _Descent:
    """State of a descent: probabilities `shares` and average `slopes` `(n_units, n_formats)`, and the text that its steps read, in order."""

    shares: Table
    slopes: Table
    text: Iterator[int]
    step: int = 0


class _Relaxation:
    """Relaxed problem: mixtures whose expected bits beyond the smallest file are at most the room that the budget leaves."""

    def __init__(self, problem: Problem, budget_bits: int, mix: Mix, options: RelaxedOptions) -> None:
        self._space, self._mix, self._options, self._budget_bits = problem.space, mix, options, budget_bits
        self._n_sequences, bits = problem.n_sequences, np.where(problem.space.offered, extra_bits(problem.space), 0).astype(np.float64)
        span = bits.max(axis=1).sum() or 1.0
        self._bits, self._room = bits / span, room_bits(problem.space, budget_bits) / span
        self.temperatures = np.geomspace(options.warm, options.cold, options.n_rounds).tolist()

    def begun(self, start: Choice, rng: np.random.Generator) -> _Descent:
        """Return a descent that begins half at a choice `(n_units,)` and half at all of its units' formats."""
        offered = self._space.offered
        shares = (offered / offered.sum(axis=1, keepdims=True) + (np.arange(offered.shape[1]) == start[:, None])) / 2
        return _Descent(shares, np.zeros(offered.shape), self._text(rng))

    def descend(self, descent: _Descent, temperature: float) -> None:
        """Make the steps of a round."""
        for _ in range(self._options.n_steps):
            sequences = np.sort([next(descent.text) for _ in range(min(self._options.n_sequences, self._n_sequences))])
            nats, slopes = self._mix(descent.shares, sequences)
            fresh = self._options.fresh if descent.step else 1.0
            descent.step += 1
            descent.slopes = (1 - fresh) * descent.slopes + fresh * slopes
            descent.shares = self._shares(descent.slopes, temperature * nats / len(slopes))

    def rounded(self, shares: Table, seen: Seen, rng: np.random.Generator) -> Choices:
        """Return the most probable choice within the budget if it was not seen, else one drawn: `(0 or 1, n_units)`."""
        logs = np.where(self._space.offered, np.log(np.maximum(shares, _LEAST)), 0.0)
        new = seen.new(solve(self._space, -logs, self._budget_bits).choice[None])
        for _ in range(0 if len(new) else _DRAWS):
            new = seen.new(solve(self._space, -(logs + _gumbel(self._space, rng)), self._budget_bits).choice[None])
            if len(new):
                break
        return new

    def _shares(self, slopes: Table, temperature: float) -> Table:
        """Return the probabilities of least linear loss less entropy whose expected bits are within the room."""

        def at(price: float) -> Table:
            costs = np.where(self._space.offered, slopes + price * self._bits, np.inf)
            weights = np.exp(-(costs - costs.min(axis=1, keepdims=True)) / temperature)
            shares: Table = weights / weights.sum(axis=1, keepdims=True)
            return shares

        def excess(price: float) -> float:
            return float((at(price) * self._bits).sum() - self._room)

        dear = np.abs(slopes).max() + temperature
        while excess(dear) > 0 and dear < _DEAREST:
            dear *= 4.0
        return at(0.0) if excess(0.0) <= 0 else at(dear) if excess(dear) >= 0 else at(float(brentq(excess, 0.0, dear)))

    def _text(self, rng: np.random.Generator) -> Iterator[int]:
        """Yield the sequences of the text in random order, then all of them again."""
        while True:
            yield from rng.permutation(self._n_sequences).tolist()


def _gumbel(space: Space, rng: np.random.Generator) -> Table:
    """Draw Gumbel noise `(n_units, n_formats)`."""
    return drawn_by_format(space, lambda n_formats: rng.gumbel(size=(len(space.units), n_formats)))
