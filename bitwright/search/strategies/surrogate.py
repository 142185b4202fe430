"""Surrogate model of a search: the incumbent, and a predictor that is refitted as measurements come in."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Predict, Question, Refit, Trials, no_trials
from bitwright.spaces import Choice, Choices


@dataclass(frozen=True, eq=False)
class Incumbent:
    """Best choice so far `(n_units,)` and its value in nats/token, infinite where it is not measured."""

    choice: Choice
    value: float

    def after(self, trials: Trials, n_sequences: int) -> "Incumbent":
        """Return the best of the trials measured on all of `n_sequences` sequences, or this one where all are worse."""
        whole = trials.only(trials.n_sequences >= n_sequences)
        if not len(whole) or whole.values[:, 0].min() > self.value:
            return self
        best = int(whole.values[:, 0].argmin())
        return Incumbent(whole.choices[best], float(whole.values[best, 0]))


@dataclass(frozen=True, eq=False)
class Learning:
    """Schedule of refits: predict by `prior` until `n_first` choices are measured, then `refit` on all of them, and again every `n_between` more.

    `refit` may return the prior. Its exceptions are raised by `ask`.
    """

    prior: Predict
    refit: Refit
    n_first: int = 10
    n_between: int = 10


class SurrogateState:
    """Surrogate model: all trials so far, and the prediction fitted to them."""

    def __init__(self, problem: Problem, learning: Learning) -> None:
        self._learning, self._predict, self._next = learning, learning.prior, learning.n_first
        self._n_sequences, self._known = problem.n_sequences, no_trials(len(problem.space.units))
        self.seen = Seen()

    def measured(self, choices: Choices, incumbent: Incumbent) -> Generator[Question, Trials, Incumbent]:
        """Ask for `choices` `(n, n_units)`, one or more, learn from the trials, and return the better of them and the incumbent.

        A choice clearly worse than the incumbent may be stopped early, where the incumbent is measured itself.
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
        """Return at most `n` unseen choices of `pool` `(n_pool, n_units)` of largest expected improvement, and mark them as seen.

        Choices expected to gain less than `least_gain` standard deviations are left out; of those whose expected improvement underflows to zero, the
        least loss in standard deviations comes first.
        """
        new = np.unique(pool[self.seen.lacks(pool)], axis=0)
        mean, deviation = self._predict(np.concatenate([new, incumbent[None]]))
        gain, deviation = mean[-1] - mean[:-1], deviation[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(gain == 0, 0.0, gain / deviation)  # without deviation a gain counts as infinitely many
        order = np.lexsort((-z, -expected_improvement(gain, deviation)))
        return self.seen.new(new[order[z[order] >= least_gain][:n]])


def expected_improvement(gain: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected improvement: E[max(0, X)] `(n,)` of normal X with mean `gain` `(n,)` and standard deviation `deviation` `(n,)`, which may be zero.

    Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", Journal of Global Optimization 13, 1998, equation 15.
    """
    z = np.divide(gain, deviation, out=np.zeros_like(gain), where=deviation > 0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(deviation > 0, gain * ndtr(z) + deviation * density, np.maximum(gain, 0.0))
