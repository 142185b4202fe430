"""Multilayer perceptron on the format ranks of a choice: AMQ's other predictor (Lee et al., EMNLP 2025).

Linear(d, 300), ReLU, twice Linear(300, 300), ReLU, then dropout of 0.2 and Linear(300, 1); Adam at 8e-4 with a cosine schedule over 2000 full-batch
epochs, smooth L1 loss. A random fifth of the measured choices is the validation set, and the weights of the epoch with the lowest validation loss are
used. What differs: inputs and targets are standardised, so that the threshold of the smooth L1 loss does not depend on the unit; units that never
vary are ignored; and all random numbers come from a seed of its own. The standard deviation is the root mean square residual of each half of the
validation set at the epoch that is best on the other half.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch import nn

from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.radial_basis import ranks
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_NEEDED, _HELD_BACK = 10, 0.2
_WIDTH, _DROPOUT, _RATE = 300, 0.2, 8e-4


@dataclass(frozen=True, eq=False)
class PerceptronPredictor(Predictor):
    """Perceptron fitted to measured choices alone, without a table; inputs are format ranks by `offered` `(n_units, n_formats)`, see `ranks`."""

    offered: NDArray[np.bool_]
    seed: int
    n_epochs: int = 2000

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:  # noqa: ARG002
        """Train the perceptron with early stopping; `errors` are not used.

        Raises:
            UserError: fewer than ten choices, i.e. fewer than two for validation.
        """
        require_samples(choices, _NEEDED, "A perceptron, which holds out a fifth of them for validation,")
        numbers = ranks(self.offered, choices)
        inputs, target = _standardiser(numbers), _standardiser(values[:, None])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = _network(numbers.shape[1])
            rows = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(values)))
            held_back, used = rows.tensor_split([round(_HELD_BACK * len(values))])
            x, y = inputs(numbers), target(values[:, None])
            residual = _train(network, (x[used], y[used]), (x[held_back], y[held_back]), n_epochs=self.n_epochs)

        @torch.inference_mode()
        def predict(others: Choices) -> tuple[Floats, Floats]:
            mean: Floats = target.inverse(network(inputs(ranks(self.offered, others))))[:, 0]
            return mean, np.full(len(others), residual * float(target.deviation[0]))

        return predict


@dataclass(frozen=True, eq=False)
class _Standardiser:
    """Scale columns to mean 0 and standard deviation 1, float32; constant columns become 0."""

    mean: Floats
    deviation: Floats

    def __call__(self, rows: Floats) -> Torch:
        scaled = np.divide(rows - self.mean, self.deviation, out=np.zeros_like(rows), where=self.deviation > 0)
        return torch.from_numpy(scaled).float()

    def inverse(self, rows: Torch) -> Floats:
        """Undo the scaling, float64."""
        unscaled: Floats = rows.double().numpy() * self.deviation + self.mean
        return unscaled


def _standardiser(rows: Floats) -> _Standardiser:
    """Return the scaling of `rows` `(n, n_columns)`."""
    return _Standardiser(rows.mean(axis=0), rows.std(axis=0))


def _network(n_inputs: int) -> nn.Module:
    hidden = [nn.Linear(n_inputs, _WIDTH), nn.ReLU(), *(layer for _ in range(2) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.ReLU()))]
    return nn.Sequential(*hidden, nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, 1))


def _train(network: nn.Module, used: tuple[Torch, Torch], held_back: tuple[Torch, Torch], *, n_epochs: int) -> float:
    """Train, restore the weights of the epoch that is best on `held_back`, and return the estimated standard deviation of predictions."""
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)
    squares = torch.empty(n_epochs, len(held_back[0]))
    least, best = float("inf"), network.state_dict()
    for epoch in range(n_epochs):
        network.train()
        optimizer.zero_grad()
        nn.functional.smooth_l1_loss(network(used[0]), used[1]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        network.eval()
        with torch.inference_mode():
            squares[epoch] = (network(held_back[0]) - held_back[1]).square()[:, 0]
        if squares[epoch].mean() < least:
            least, best = float(squares[epoch].mean()), {name: weight.detach().clone() for name, weight in network.state_dict().items()}
    network.load_state_dict(best)
    first, second = squares[:, ::2], squares[:, 1::2]
    crossed = torch.cat([first[second.mean(dim=1).argmin()], second[first.mean(dim=1).argmin()]])
    return float(crossed.mean().sqrt())
