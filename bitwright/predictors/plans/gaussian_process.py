"""A Gaussian process on what the table gets wrong, by GPyTorch through BoTorch: what the measurements say of alike plans, however it comes about.

    log value = log sum + c + b·(log sum) + a₁ Σ_u r_u θ_{u,format} + a₂ f(z) + scatter

f has a Matérn covariance (ν = 5/2; Rasmussen & Williams, 2006, equation 4.17) of the distance between the points z_u = √(price of u's format), the
`amplitudes` of `effects`: a distance that knows the order of a unit's formats and how much a unit weighs. Its scale is learnt, but not one for each
unit, which a few dozen measurements could not tell. All of a, b, c, the scale and the scatter maximise the marginal likelihood.

What differs from `ridge`, which has a similar term: the scale of the distance is learnt, a unit has no error common to its formats, and the trend no
bend. It is slower by a factor of thirty, and the optional extra `search` has to be installed.
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
from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.gp_kernels import amplitudes, one_hot
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_NEEDED = 4
_NOISE_SHARES = (0.1, 1.0)  # of the standard errors that are a choice's own; see `evidence`
_LEAST_VARIANCE = 1e-6  # of a standardised target: less than that GPyTorch raises itself, with a warning
_AT_ONCE = 1024  # choices predicted at a time


class GaussianProcessPredictor(Predictor):
    """Around a `table` `(n_units, n_formats)` in any units.

    Raises:
        LibraryError: botorch is not installed.
    """

    def __init__(self, table: Floats) -> None:
        self._table = table
        self._botorch, self._gpytorch = _library("botorch"), _library("gpytorch")

    def fit(self, choices: Choices, values: Floats, errors: Floats) -> Predict:
        """See `Predictor.fit`.

        Raises:
            UserError: fewer than four choices with a sum and a value above zero.
        """
        shares, raised = shares_of(self._table, choices), np.maximum(values, errors)
        usable = (raised > 0) & np.isfinite(shares.log_sum)
        require_samples(choices[usable], _NEEDED, "The Gaussian process")
        shares, raised, errors = shares.only(usable), raised[usable], errors[usable]
        ratios = np.log(raised) - shares.log_sum
        view = _View(self._table.shape, float(shares.log_sum.mean()))
        scale = float(ratios.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._botorch.exceptions.InputDataWarning)  # inputs are not brought to the unit cube on purpose
            model = self._model(view, torch.from_numpy((ratios - ratios.mean()) / scale), shares=shares, noise=errors / raised / scale)

        def predict(others: Choices) -> tuple[Floats, Floats]:
            return self._predicted(model, view, shares_of(self._table, others), centre=float(ratios.mean()), scale=scale)

        return predict

    def _model(self, view: "_View", targets: Torch, *, shares: Shares, noise: Floats) -> Any:
        """BoTorch's model of standardised `targets` `(n,)`, whose errors are `noise` `(n,)`: the most probable of a few shares of them."""
        found = [self._fitted(view, targets, shares=shares, noise=share * noise) for share in _NOISE_SHARES]
        return max(found, key=lambda each: each[1])[0]

    def _fitted(self, view: "_View", targets: Torch, *, shares: Shares, noise: Floats) -> tuple[Any, float]:
        """With noise of known standard deviation `(n,)` and a scatter that is learnt; and its log marginal likelihood for each target."""
        likelihood = self._gpytorch.likelihoods.FixedNoiseGaussianLikelihood(
            torch.from_numpy(noise**2).clamp(min=_LEAST_VARIANCE), learn_additional_noise=True
        )
        rows, kernel = view.rows(shares), self._kernel(view)
        model = self._botorch.models.SingleTaskGP(rows, targets[:, None], likelihood=likelihood, covar_module=kernel, outcome_transform=None)
        marginal = self._gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        with self._botorch.utils.sampling.manual_seed(0):  # a fit that fails begins again elsewhere
            self._botorch.fit_gpytorch_mll(marginal)
        model.train()
        with torch.no_grad():
            evidence = float(marginal(model(*model.train_inputs), model.train_targets))
        return model.eval(), evidence

    def _kernel(self, view: "_View") -> Any:
        kernels, prior = self._gpytorch.kernels, self._gpytorch.priors.LogNormalPrior
        likeness = kernels.MaternKernel(2.5, active_dims=view.errors, lengthscale_prior=prior(0.0, 1.0))
        linear = (kernels.LinearKernel(active_dims=columns, variance_prior=prior(0.0, 1.0)) for columns in (view.shares, view.trend))
        return sum(linear, kernels.ScaleKernel(likeness, outputscale_prior=prior(0.0, 1.0)))

    def _predicted(self, model: Any, view: "_View", shares: Shares, *, centre: float, scale: float) -> tuple[Floats, Floats]:
        mean, deviation = np.zeros(len(shares)), np.zeros(len(shares))
        costs = np.flatnonzero(np.isfinite(shares.log_sum))
        scatter = float(model.likelihood.second_noise.detach())
        for start in range(0, len(costs), _AT_ONCE):
            index = costs[start : start + _AT_ONCE]
            some = shares.only(index)
            with torch.no_grad():
                posterior = model.posterior(view.rows(some))
            mean[index] = np.exp(some.log_sum + centre + scale * posterior.mean[:, 0].numpy())
            deviation[index] = mean[index] * np.minimum(scale * np.sqrt(posterior.variance[:, 0].numpy() + scatter), 1.0)
        return mean, deviation


@dataclass(frozen=True)
class _View:
    """Choices as rows of numbers: the errors of their units, their one-hot shares, and how far the logarithm of the sum is from `centre`."""

    shape: tuple[int, int]
    centre: float

    @property
    def errors(self) -> range:
        """Columns of the errors."""
        return range(self.shape[0])

    @property
    def shares(self) -> range:
        """Columns of the one-hot shares."""
        return range(self.shape[0], self.shape[0] * (1 + self.shape[1]))

    @property
    def trend(self) -> range:
        """The last column."""
        return range(self.shares.stop, self.shares.stop + 1)

    def rows(self, shares: Shares) -> Torch:
        """`(n, n_columns)` float64."""
        columns = amplitudes(shares, self.centre), one_hot(shares, self.shape[1]), shares.log_sum - self.centre
        return torch.from_numpy(np.column_stack(columns))


def _library(name: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what a library's own authors should hear, not those who choose a predictor
            return importlib.import_module(name)
    except ImportError as error:
        raise LibraryError(
            f"The Gaussian process needs {name}, which cannot be imported ({error}): run `pip install 'bitwright[search]'`, or choose ridge."
        ) from error
