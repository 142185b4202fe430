"""Bayesian optimisation of the whole front by noisy expected hypervolume improvement (NEHVI).

Daulton, Balandat & Bakshy, "Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected Hypervolume Improvement", NeurIPS 2021, in the
logarithmic form of Ament et al., NeurIPS 2023, both from BoTorch. The size of a choice is known exactly, so only the loss is modelled:

    log loss(choice) = log prior(choice) + g(choice),   g a Gaussian process

Each unit is a coordinate of g, its format rank as a share of the highest, scaled by the unit's importance under the prior; one length scale serves
all (with the prior of Hvarfner et al., ICML 2024), so that a fit takes a second where one per unit would take half a minute. The noise is fitted:
choices are measured on the same sequences, and the part of their standard errors that they share cancels between them. The hypervolume is that of log
loss and bits per weight, so that every part of the front counts alike however small its losses are. There is no gradient over formats: the
acquisition function is evaluated on a pool of choices around the measured front, and a batch is picked one by one, each given the ones before.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.format_ranks import FormatRanks, random_ranks
from bitwright.search.solvers.front import nondominated
from bitwright.search.strategies.amq import stratified
from bitwright.search.strategies.extras import extra
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Predict, Strategy, Trials, asked
from bitwright.spaces import Choices

_AT_ONCE = 128  # choices whose acquisition function is evaluated together
_LEAST_STRETCH = 0.1  # of the mean scale: a unit without importance under the prior still counts
_LEAST_LOSS = 1e-9  # nats/token: floor of the loss, so that its logarithm is finite


@dataclass(frozen=True)
class NehviOptions:
    """Hyperparameters: `n_first` choices spread along the size, then `n_rounds` times `n_each`.

    Each is picked from a pool of `n_pool` by an acquisition function over `n_samples` draws from the posterior.
    """

    n_first: int = 20
    n_rounds: int = 100
    n_each: int = 4
    n_pool: int = 512
    n_samples: int = 64


def nehvi_front(problem: Problem, prior: Predict, numbers: NehviOptions) -> Strategy:
    """Return the strategy that searches for the front of loss and size, from `problem.start` and an initial design.

    `prior` predicts losses in nats/token; a constant one is uninformative. Its standard deviations are not used.

    Raises:
        LibraryError: BoTorch is not installed.
    """
    return GeneratorStrategy(problem, _asking(problem, _Model(problem, prior, numbers), numbers))


def _asking(problem: Problem, model: "_Model", numbers: NehviOptions) -> Asking:
    rng, seen = problem.random(), Seen()
    first = np.concatenate([problem.start, stratified(problem.space, numbers.n_first, rng)])
    known = yield asked(seen.new(first), problem.n_sequences)
    for _ in range(numbers.n_rounds if len(known) else 0):
        front = known.choices[nondominated(np.column_stack([problem.space.total_bits(known.choices), known.values[:, 0]]))]
        pool = np.unique(_pool(FormatRanks(problem.space), front, numbers.n_pool, rng), axis=0)
        pool = pool[seen.lacks(pool)]
        if len(pool):
            picked = model.picked(known, front, pool)
            known = known.joined((yield asked(seen.new(pool[picked]), problem.n_sequences)))


def _pool(format_ranks: FormatRanks, front: Choices, n: int, rng: np.random.Generator) -> Choices:
    """Return a pool `(n, n_units)`: members of the front with one to four units a rank up or down, and one in eight random of all sizes."""
    n_random = n // 8
    anywhere = [random_ranks(format_ranks, target, 1, rng)[0] for target in rng.uniform(0, float(format_ranks.spent(format_ranks.top)), n_random)]
    near = format_ranks.ranks(front[rng.integers(len(front), size=n - n_random)])
    order = np.argsort(rng.random(near.shape), axis=1).argsort(axis=1)  # (n, n_units): a random rank of each unit
    moved = order < rng.integers(1, 5, size=(len(near), 1))
    near = np.clip(near + np.where(moved, rng.choice([-1, 1], size=near.shape), 0), 0, format_ranks.top)
    return format_ranks.choices(np.concatenate([near, *(ranks[None] for ranks in anywhere)]))


class _Model:
    """Gaussian process g, refitted each time, and the acquisition function over it."""

    def __init__(self, problem: Problem, prior: Predict, numbers: NehviOptions) -> None:
        self._botorch, self._gpytorch = extra("botorch"), extra("gpytorch")
        self._problem, self._prior, self._numbers = problem, prior, numbers
        self._format_ranks = FormatRanks(problem.space)
        self._stretch = self._matters()

    def picked(self, known: Trials, front: Choices, pool: Choices) -> NDArray[np.int64]:
        """Return the indices into `pool` `(n_pool, n_units)` of the choices to measure next."""
        with warnings.catch_warnings(), self._botorch.utils.sampling.manual_seed(self._problem.seed):
            warnings.simplefilter("ignore", self._gpytorch.utils.warnings.NumericalWarning)  # jitter on a diagonal
            warnings.filterwarnings("ignore", message="Failed to compile fused")  # without a compiler BoTorch does the same in Python
            acquisition = self._acquisition(self._fitted(known), known, front)
            rows, chosen = self._rows(pool), np.zeros(0, dtype=np.int64)
            for _ in range(min(self._numbers.n_each, len(pool))):
                values = _evaluated(acquisition, rows)
                values[chosen] = -np.inf
                chosen = np.append(chosen, values.argmax())
                acquisition.set_X_pending(rows[chosen])
        return chosen

    def _rows(self, choices: Choices) -> Torch:
        """Map choices to inputs `(n, n_units + 2)`: the coordinates of g, the log of the prior, and bits per weight."""
        shares = self._format_ranks.ranks(choices) / np.maximum(self._format_ranks.top, 1) * self._stretch
        prior = np.log(np.maximum(self._prior(choices)[0], _LEAST_LOSS))
        return torch.from_numpy(np.column_stack([shares, prior, self._problem.space.total_bits(choices) / self._problem.space.n_weights]))

    def _matters(self) -> NDArray[np.float64]:
        """Scale of each coordinate `(n_units,)`, so that distances do not grow with the number of units.

        It is the range of the log prior over a unit's formats, with all other units at their middle rank.
        """
        middle, top = self._format_ranks.top // 2, self._format_ranks.top
        ends = np.array([np.where(np.arange(len(top)) == unit, end, middle) for end in (0 * top, top) for unit in range(len(top))])
        log_prior = np.log(np.maximum(self._prior(self._format_ranks.choices(ends))[0], _LEAST_LOSS)).reshape(2, -1)
        spans = np.abs(log_prior[0] - log_prior[1])
        relative = spans / spans.mean() if spans.any() else np.ones(len(spans))
        stretch: NDArray[np.float64] = np.maximum(relative, _LEAST_STRETCH) / np.sqrt(len(spans))
        return stretch

    def _fitted(self, known: Trials) -> Any:
        """Fit BoTorch's model of log loss minus log prior."""
        rows = self._rows(known.choices)
        losses = torch.from_numpy(np.log(np.maximum(known.values[:, :1], _LEAST_LOSS))) - rows[:, -2:-1]
        kernel = self._gpytorch.kernels.MaternKernel(
            2.5, active_dims=range(len(self._stretch)), lengthscale_prior=self._gpytorch.priors.LogNormalPrior(2**0.5, 3**0.5)
        )
        model = self._botorch.models.SingleTaskGP(rows, losses, covar_module=kernel)
        self._botorch.fit_gpytorch_mll(self._gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def _acquisition(self, model: Any, known: Trials, front: Choices) -> Any:
        """Log noisy expected hypervolume improvement over the measured front, with signs flipped since BoTorch maximises.

        The reference point is a tenth of the range beyond the largest log loss and bits per weight.
        """
        objectives = torch.stack(
            [torch.from_numpy(np.log(np.maximum(known.values[:, 0], _LEAST_LOSS))), self._rows(known.choices)[:, -1]], dim=1
        )  # (n, 2)
        worst = objectives.amax(dim=0) + 0.1 * (objectives.amax(dim=0) - objectives.amin(dim=0)) + 1e-6
        multi_objective = self._botorch.acquisition.multi_objective
        return multi_objective.qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=(-worst).tolist(),
            X_baseline=self._rows(front),
            sampler=self._botorch.sampling.SobolQMCNormalSampler(torch.Size([self._numbers.n_samples]), seed=self._problem.seed),
            objective=multi_objective.objective.GenericMCMultiOutputObjective(lambda samples, X: _minimised(samples, X)),  # noqa: N803 - BoTorch's name
        )


def _minimised(samples: Torch, rows: Torch) -> Torch:
    """Return the negated log loss and bits per weight `(..., 2)` for samples of g `(..., 1)` at `rows` `(..., n_units + 2)`."""
    return torch.stack([-(samples[..., 0] + rows[..., -2]), -rows[..., -1].expand(samples.shape[:-1])], dim=-1)


@torch.no_grad()
def _evaluated(acquisition: Any, rows: Torch) -> NDArray[np.float64]:
    """Evaluate the acquisition function at each of `rows` `(n, n_units + 2)` by itself: `(n,)`."""
    values: NDArray[np.float64] = torch.cat([acquisition(part[:, None]) for part in torch.split(rows, _AT_ONCE)]).numpy()
    return values
