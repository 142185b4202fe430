"""What a search believes while it goes on: the best choice so far, and a prediction of all others that is renewed as measurements come in."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.strategies.generator_strategy import Asking, Problem
from bitwright.search.strategies.strategy import Predict, Question, Refit, Trials, no_trials
from bitwright.spaces import Choice, Choices


@dataclass(frozen=True, eq=False)
class Incumbent:
    """The best choice so far `(n_units,)` and its value in nats/token, infinite where it is not measured."""

    choice: Choice
    value: float

    def after(self, trials: Trials, n_sequences: int) -> "Incumbent":
        """The best of the trials that were measured on all of `n_sequences` sequences, if that is no worse."""
        whole = trials.only(trials.n_sequences >= n_sequences)
        if not len(whole) or whole.values[:, 0].min() > self.value:
            return self
        best = int(whole.values[:, 0].argmin())
        return Incumbent(whole.choices[best], float(whole.values[best, 0]))


@dataclass(frozen=True, eq=False)
class Learning:
    """The `prior` is believed until `n_first` choices are measured, then `refit` learns from all of them, and again after every `n_between` more.

    Where nothing is to be learnt, `refit` may return the prior. What it raises comes out of `ask`.
    """

    prior: Predict
    refit: Refit
    n_first: int = 10
    n_between: int = 10


class Belief:
    """All that was measured, and what is expected of the rest."""

    def __init__(self, problem: Problem, learning: Learning) -> None:
        self._learning, self._predict, self._next = learning, learning.prior, learning.n_first
        self._n_sequences, self._known = problem.n_sequences, no_trials(len(problem.space.units))
        self.seen = Seen()

    def measured(self, choices: Choices, incumbent: Incumbent) -> Generator[Question, Trials, Incumbent]:
        """Ask for `choices` `(n, n_units)`, one or more, learn from what is told, and return the better of it and the incumbent.

        What is clearly worse than the incumbent may be stopped, where that is measured itself.
        """
        against = incumbent.choice[None] if np.isfinite(incumbent.value) else choices[:0]
        trials = yield Question(choices, self._n_sequences, against)
        if len(trials):
            self._known = self._known.joined(trials)
        if len(self._known) >= self._next:
            self._predict = self._learning.refit(self._known.choices, self._known.values[:, 0], self._known.errors[:, 0])
            self._next = len(self._known) + self._learning.n_between
        return incumbent.after(trials, self._n_sequences)

    def promising(self, pool: Choices, incumbent: Choice, *, least_gain: float, n: int) -> Choices:
        """At most `n` of the choices in `pool` `(n_pool, n_units)` that were not seen, and now are; of largest expected improvement first.

        Left out is what is expected to gain less than `least_gain` standard deviations; of what is hopeless, and so has no improvement that a number
        could hold, those of least loss in standard deviations come first.
        """
        new = np.unique(pool[self.seen.lacks(pool)], axis=0)
        mean, deviation = self._predict(np.concatenate([new, incumbent[None]]))
        gain, deviation = mean[-1] - mean[:-1], deviation[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(gain == 0, 0.0, gain / deviation)  # a certain gain is infinitely many deviations
        order = np.lexsort((-z, -expected_improvement(gain, deviation)))
        return self.seen.new(new[order[z[order] >= least_gain][:n]])


#: from an incumbent to the better one that was found from there
Descend = Callable[[Incumbent], Generator[Question, Trials, Incumbent]]
#: new choices near a given one
Kick = Callable[[Choice], Iterator[Choice]]


def iterated(belief: Belief, start: Choices, descend: Descend, kick: Kick, *, n_restarts: int) -> Asking:
    """Descend from the best of `start` `(n, n_units)`, then `n_restarts` times from a kick of the best choice so far, or until no kick is new.

    Iterated local search: Lourenço, Martin & Stützle, Handbook of Metaheuristics, 2003.
    """
    best = yield from belief.measured(belief.seen.new(start), Incumbent(start[0], np.inf))
    best = yield from descend(best)
    for _ in range(n_restarts):
        kicked = next(kick(best.choice), None)
        if kicked is None:
            return
        found = yield from belief.measured(kicked[None], Incumbent(kicked, np.inf))
        found = yield from descend(found)
        best = min(best, found, key=lambda incumbent: incumbent.value)


def expected_improvement(gain: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of what is above zero of normal variables of mean `gain` `(n,)` and standard deviation `deviation` `(n,)`, which may be zero.

    Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", Journal of Global Optimization 13, 1998, equation 15.
    """
    z = np.divide(gain, deviation, out=np.zeros_like(gain), where=deviation > 0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(deviation > 0, gain * ndtr(z) + deviation * density, np.maximum(gain, 0.0))
