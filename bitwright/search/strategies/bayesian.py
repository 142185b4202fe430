"""Bayesian optimisation of the whole front by noisy expected hypervolume improvement.

Daulton, Balandat & Bakshy, "Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected Hypervolume Improvement", NeurIPS 2021, in the
logarithmic form of Ament et al., NeurIPS 2023, both from BoTorch. The size of a choice is known exactly, so only the loss is modelled:

    log loss(choice) = log prior(choice) + g(choice),   g a Gaussian process

Each unit is a coordinate of g, its height as a share of its top, stretched by how much the prior says the unit matters; one length scale serves all
(with the prior of Hvarfner et al., ICML 2024), so that a fit takes a second where one for each unit would take half a minute. Its noise is learnt:
choices are measured on the same sequences, and what they share of their standard errors cancels between them. The hypervolume is that of log loss
and bits per weight, so that a part of the front counts as much where losses are small. There is no gradient over formats: the acquisition is
evaluated on a pool of choices around the measured front, and of several choices to measure each is picked given the ones before.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.front import nondominated
from bitwright.search.solvers.rungs import Rungs, drawn
from bitwright.search.strategies.amq import stratified
from bitwright.search.strategies.extras import extra
from bitwright.search.strategies.generator_strategy import Asking, Course, Problem
from bitwright.search.strategies.strategy import Predict, Strategy, Trials, asked
from bitwright.spaces import Choices

_AT_ONCE = 128  # choices whose acquisition is evaluated together
_LEAST_STRETCH = 0.1  # of the mean: a unit that the prior thinks nothing of still counts
_LEAST_LOSS = 1e-9  # nats/token: what has none is given it, to have a logarithm


@dataclass(frozen=True)
class Hypervolume:
    """The numbers of the search: `n_first` choices spread along the size, then `n_rounds` times `n_each`.

    Each is picked from a pool of `n_pool` by an acquisition over `n_samples` draws from the posterior.
    """

    n_first: int = 20
    n_rounds: int = 100
    n_each: int = 4
    n_pool: int = 512
    n_samples: int = 64


def nehvi_front(problem: Problem, prior: Predict, numbers: Hypervolume) -> Strategy:
    """The front of loss and size, from `problem.start` and a first design.

    `prior` predicts losses in nats/token; one that is the same everywhere says nothing. Its standard deviations are not used.

    Raises:
        LibraryError: BoTorch is not installed.
    """
    return Course(problem, _asking(problem, _Model(problem, prior, numbers), numbers))


def _asking(problem: Problem, model: "_Model", numbers: Hypervolume) -> Asking:
    rng, seen = problem.random(), Seen()
    first = np.concatenate([problem.start, stratified(problem.space, numbers.n_first, rng)])
    known = yield asked(seen.new(first), problem.n_sequences)
    for _ in range(numbers.n_rounds if len(known) else 0):
        front = known.choices[nondominated(np.column_stack([problem.space.total_bits(known.choices), known.values[:, 0]]))]
        pool = np.unique(_pool(Rungs(problem.space), front, numbers.n_pool, rng), axis=0)
        pool = pool[seen.lacks(pool)]
        if len(pool):
            picked = model.picked(known, front, pool)
            known = known.joined((yield asked(seen.new(pool[picked]), problem.n_sequences)))


def _pool(rungs: Rungs, front: Choices, n: int, rng: np.random.Generator) -> Choices:
    """`n` choices `(n, n_units)`: members of the front with one to four units a rung up or down, and one in eight random ones of all sizes."""
    n_random = n // 8
    anywhere = [drawn(rungs, target, 1, rng)[0] for target in rng.uniform(0, float(rungs.spent(rungs.top)), n_random)]
    near = rungs.of(front[rng.integers(len(front), size=n - n_random)])
    order = np.argsort(rng.random(near.shape), axis=1).argsort(axis=1)  # (n, n_units): a random rank of each unit
    moved = order < rng.integers(1, 5, size=(len(near), 1))
    near = np.clip(near + np.where(moved, rng.choice([-1, 1], size=near.shape), 0), 0, rungs.top)
    return rungs.choices(np.concatenate([near, *(heights[None] for heights in anywhere)]))


class _Model:
    """The process g, fitted anew each time, and the acquisition over it."""

    def __init__(self, problem: Problem, prior: Predict, numbers: Hypervolume) -> None:
        self._botorch, self._gpytorch = extra("botorch"), extra("gpytorch")
        self._problem, self._prior, self._numbers = problem, prior, numbers
        self._rungs = Rungs(problem.space)
        self._stretch = self._matters()

    def picked(self, known: Trials, front: Choices, pool: Choices) -> NDArray[np.int64]:
        """Indices into `pool` `(n_pool, n_units)` of what to measure next."""
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
        """Choices as `(n, n_units + 2)`: the coordinates of g, the log of the prior, and bits per weight."""
        shares = self._rungs.of(choices) / np.maximum(self._rungs.top, 1) * self._stretch
        prior = np.log(np.maximum(self._prior(choices)[0], _LEAST_LOSS))
        return torch.from_numpy(np.column_stack([shares, prior, self._problem.space.total_bits(choices) / self._problem.space.n_weights]))

    def _matters(self) -> NDArray[np.float64]:
        """By how much each coordinate is stretched `(n_units,)`, so that distances do not grow with the number of units.

        It is the range of the log prior over a unit's formats, with all other units half way up.
        """
        middle, top = self._rungs.top // 2, self._rungs.top
        ends = np.array([np.where(np.arange(len(top)) == unit, end, middle) for end in (0 * top, top) for unit in range(len(top))])
        log_prior = np.log(np.maximum(self._prior(self._rungs.choices(ends))[0], _LEAST_LOSS)).reshape(2, -1)
        spans = np.abs(log_prior[0] - log_prior[1])
        relative = spans / spans.mean() if spans.any() else np.ones(len(spans))
        stretch: NDArray[np.float64] = np.maximum(relative, _LEAST_STRETCH) / np.sqrt(len(spans))
        return stretch

    def _fitted(self, known: Trials) -> Any:
        """BoTorch's model of log loss over log prior."""
        rows = self._rows(known.choices)
        losses = torch.from_numpy(np.log(np.maximum(known.values[:, :1], _LEAST_LOSS))) - rows[:, -2:-1]
        kernel = self._gpytorch.kernels.MaternKernel(
            2.5, active_dims=range(len(self._stretch)), lengthscale_prior=self._gpytorch.priors.LogNormalPrior(2**0.5, 3**0.5)
        )
        model = self._botorch.models.SingleTaskGP(rows, losses, covar_module=kernel)
        self._botorch.fit_gpytorch_mll(self._gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def _acquisition(self, model: Any, known: Trials, front: Choices) -> Any:
        """Log noisy expected hypervolume improvement over the measured front, BoTorch maximising what is minimised here.

        Its reference is a tenth of their range beyond the largest log loss and bits per weight.
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
    """Minus log loss and bits per weight `(..., 2)`, of samples of g `(..., 1)` at `rows` `(..., n_units + 2)`."""
    return torch.stack([-(samples[..., 0] + rows[..., -2]), -rows[..., -1].expand(samples.shape[:-1])], dim=-1)


@torch.no_grad()
def _evaluated(acquisition: Any, rows: Torch) -> NDArray[np.float64]:
    """The acquisition of each of `rows` `(n, n_units + 2)` by itself `(n,)`."""
    values: NDArray[np.float64] = torch.cat([acquisition(part[:, None]) for part in torch.split(rows, _AT_ONCE)]).numpy()
    return values
