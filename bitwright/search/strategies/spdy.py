"""SPDY: reweight the rows of a sensitivity table until the knapsack optima that it gives measure better.

Frantar & Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022, section 3.2, used in "Optimal Brain Compression", NeurIPS 2022: each
unit's row is multiplied by a coefficient in [0, 1], the knapsack is solved for the products, and only the true loss of the choice counts. The best of
a hundred random vectors of coefficients is improved by redrawing a tenth of its entries, then one fewer, and so on down to a single one, each time
until a hundred draws in a row bring no improvement.

What differs: the table as it is comes before the random vectors; the knapsack is exact instead of in `buckets`; a vector that leads to a choice
measured before counts as a draw, but the choice is not measured again; and small models, where a tenth of the units rounds to none, get their local
search, too.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.instance import checked_table, room_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Question, Strategy, Trials
from bitwright.spaces import Choice, Choices


@dataclass(frozen=True)
class SpdyOptions:
    """Hyperparameters, as published: `n_first` random vectors, `n_tries` draws without improvement after which fewer entries are redrawn, and the
    `share` of all entries that is redrawn at first.
    """

    n_first: int = 100
    n_tries: int = 100
    share: float = 0.1


def spdy_search(problem: Problem, budget_bits: int, *, table: NDArray[np.float64], numbers: SpdyOptions) -> Strategy:
    """Return the strategy of SPDY within a budget; `table` `(n_units, n_formats)` is in nats/token.

    `problem.start` is measured first where it fits, but the search cannot start from it, since its coefficients are unknown.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    room_bits(problem.space, budget_bits)
    return GeneratorStrategy(problem, _asking(problem, _Attempts(problem, budget_bits, checked_table(problem.space, table)), numbers))


class _Attempts:
    """Map from coefficients to knapsack optima, with the measured losses."""

    def __init__(self, problem: Problem, budget_bits: int, table: NDArray[np.float64]) -> None:
        self._problem, self._budget_bits, self._table = problem, budget_bits, table
        self._values: dict[bytes, float] = {}
        self._seen = Seen()

    def start(self) -> Choices:
        """Return the starting choices that fit into the budget."""
        return self._problem.start_within(self._budget_bits)

    def choice(self, coefficients: NDArray[np.float64]) -> Choice:
        """Return the best choice `(n_units,)` for the table whose rows are multiplied by `coefficients` `(n_units,)`."""
        return solve(self._problem.space, self._table * coefficients[:, None], self._budget_bits).choice

    def value(self, choice: Choice) -> float:
        """Return the measured loss, infinite where it was not measured on all of the text."""
        return self._values.get(choice.tobytes(), np.inf)

    def measured(self, choices: Choices, against: Choices) -> Generator[Question, Trials, None]:
        """Ask for the rows of `choices` `(n, n_units)` that were not asked for before."""
        new = self._seen.new(choices)
        if len(new):
            trials = yield Question(new, self._problem.n_sequences, against)
            whole = trials.only(trials.n_sequences >= self._problem.n_sequences)
            self._values |= {choice.tobytes(): float(value) for choice, value in zip(whole.choices, whole.values[:, 0], strict=True)}


def _asking(problem: Problem, attempts: _Attempts, numbers: SpdyOptions) -> Asking:
    rng, n_units = problem.random(), len(problem.space.units)
    vectors = np.concatenate([np.ones((1, n_units)), rng.uniform(size=(numbers.n_first, n_units))])
    choices = np.array([attempts.choice(vector) for vector in vectors])
    yield from attempts.measured(np.concatenate([attempts.start(), choices]), choices[:0])
    first = int(np.argmin([attempts.value(choice) for choice in choices]))
    best, best_choice = vectors[first], choices[first]
    for n_drawn in range(max(round(numbers.share * n_units), 1), 0, -1):
        in_vain = 0
        while in_vain < numbers.n_tries:
            vector = best.copy()
            vector[rng.integers(n_units, size=n_drawn)] = rng.uniform(size=n_drawn)  # as published: an entry may be redrawn twice
            choice = attempts.choice(vector)
            yield from attempts.measured(choice[None], best_choice[None] if np.isfinite(attempts.value(best_choice)) else choices[:0])
            in_vain += 1
            if attempts.value(choice) < attempts.value(best_choice):
                best, best_choice, in_vain = vector, choice, 0
