"""Gaussian process on the residual of the table's sum, fitted by GPyTorch through BoTorch.

    log value = log sum + c + b·(log sum) + a₁ Σ_u r_u θ_{u,format} + a₂ f(z) + noise

f has a Matérn covariance (ν = 5/2; Rasmussen & Williams, 2006, equation 4.17) of the distance between the points z_u = √(price of u's format), see
`gp_kernels.amplitudes`: the distance respects the order of a unit's formats and the unit's cost. There is one length scale for all units, since a few
dozen measurements cannot determine one for each. The values a, b, c, the length scale and the noise maximise the marginal likelihood.

What differs from `ridge`, which has a similar term: the length scale is fitted, a unit has no error common to its formats, and the trend is linear.
It is slower by two orders of magnitude (docs/predictors.md), and the optional extra `search` has to be installed.
"""

import importlib
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.errors import LibraryError
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.gp_kernels import amplitudes, one_hot
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_NEEDED = 4
_NOISE_SHARES = (0.1, 1.0)  # fractions of the standard errors that are independent between choices; see `additive_gp`
_LEAST_VARIANCE = 1e-6  # of a standardised target: GPyTorch raises anything below to it, with a warning
_AT_ONCE = 1024  # choices predicted at a time


class GaussianProcessPredictor(Predictor):
    """Gaussian process around a `table` `(n_units, n_formats)` in any units.

    Raises:
        LibraryError: botorch is not installed.
    """

    def __init__(self, table: Floats) -> None:
        self._table = table
        self._botorch, self._gpytorch = _library("botorch"), _library("gpytorch")

    def fit(self, choices: Choices, values: Floats, errors: Floats) -> Predict:
        """Fit a Gaussian process to the logarithm of `values`.

        Raises:
            UserError: fewer than four choices with a sum and a value above zero.
        """
        shares, raised = cost_shares(self._table, choices), np.maximum(values, errors)
        usable = (raised > 0) & np.isfinite(shares.log_sum)
        require_samples(choices[usable], _NEEDED, "The Gaussian process")
        shares, raised, errors = shares.only(usable), raised[usable], errors[usable]
        ratios = np.log(raised) - shares.log_sum
        view = _View(self._table.shape, float(shares.log_sum.mean()))
        scale = float(ratios.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._botorch.exceptions.InputDataWarning)  # inputs are not scaled to the unit cube on purpose
            model = self._model(view, torch.from_numpy((ratios - ratios.mean()) / scale), shares=shares, noise=errors / raised / scale)

        def predict(others: Choices) -> tuple[Floats, Floats]:
            return self._predicted(model, view, cost_shares(self._table, others), centre=float(ratios.mean()), scale=scale)

        return predict

    def _model(self, view: "_View", targets: Torch, *, shares: CostShares, noise: Floats) -> Any:
        """Fit BoTorch's model of standardised `targets` `(n,)` with several shares of their errors `noise` `(n,)`, and return the most likely one."""
        found = [self._fitted(view, targets, shares=shares, noise=share * noise) for share in _NOISE_SHARES]
        return max(found, key=lambda each: each[1])[0]

    def _fitted(self, view: "_View", targets: Torch, *, shares: CostShares, noise: Floats) -> tuple[Any, float]:
        """Fit a model with noise of known standard deviation `(n,)` plus fitted noise; return it with its log marginal likelihood per target."""
        likelihood = self._gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
            torch.from_numpy(noise**2).clamp(min=_LEAST_VARIANCE), learn_additional_noise=True
        )
        rows, kernel = view.rows(shares), self._kernel(view)
        model = self._botorch.models.SingleTaskGP(rows, targets[:, None], likelihood=likelihood, covar_module=kernel, outcome_transform=None)
        marginal = self._gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        with self._botorch.utils.sampling.manual_seed(0):  # a failed fit restarts from a random point
            self._botorch.fit_gpytorch_mll(marginal)
        model.train()
        with torch.no_grad():
            evidence = float(marginal(model(*model.train_inputs), model.train_targets))
        return model.eval(), evidence

    def _kernel(self, view: "_View") -> Any:
        kernels, prior = self._gpytorch.kernels, self._gpytorch.priors.LogNormalPrior
        matern = kernels.MaternKernel(2.5, active_dims=view.errors, lengthscale_prior=prior(0.0, 1.0))
        linear = (kernels.LinearKernel(active_dims=columns, variance_prior=prior(0.0, 1.0)) for columns in (view.shares, view.trend))
        return sum(linear, kernels.ScaleKernel(matern, outputscale_prior=prior(0.0, 1.0)))

    def _predicted(self, model: Any, view: "_View", shares: CostShares, *, centre: float, scale: float) -> tuple[Floats, Floats]:
        mean, deviation = np.zeros(len(shares)), np.zeros(len(shares))
        costs = np.flatnonzero(np.isfinite(shares.log_sum))
        fitted_noise = float(model.likelihood.second_noise.detach())
        for start in range(0, len(costs), _AT_ONCE):
            index = costs[start : start + _AT_ONCE]
            some = shares.only(index)
            with torch.no_grad():
                posterior = model.posterior(view.rows(some))
            mean[index] = np.exp(some.log_sum + centre + scale * posterior.mean[:, 0].numpy())
            deviation[index] = mean[index] * np.minimum(scale * np.sqrt(posterior.variance[:, 0].numpy() + fitted_noise), 1.0)
        return mean, deviation


@dataclass(frozen=True)
class _View:
    """Feature columns of choices: amplitudes of their units' errors, one-hot cost shares, and the logarithm of the sum less `centre`."""

    shape: tuple[int, int]
    centre: float

    @property
    def errors(self) -> range:
        """Return the columns of the amplitudes."""
        return range(self.shape[0])

    @property
    def shares(self) -> range:
        """Return the columns of the one-hot shares."""
        return range(self.shape[0], self.shape[0] * (1 + self.shape[1]))

    @property
    def trend(self) -> range:
        """Return the last column, the logarithm of the sum."""
        return range(self.shares.stop, self.shares.stop + 1)

    def rows(self, shares: CostShares) -> Torch:
        """Return the features of choices `(n, n_columns)` float64."""
        columns = amplitudes(shares, self.centre), one_hot(shares, self.shape[1]), shares.log_sum - self.centre
        return torch.from_numpy(np.column_stack(columns))


def _library(name: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # meant for the library's authors, not its users
            return importlib.import_module(name)
    except ImportError as error:
        raise LibraryError(
            f"The Gaussian process needs {name}, which cannot be imported ({error}): run `pip install 'bitwright[search]'`, or choose ridge."
        ) from error
