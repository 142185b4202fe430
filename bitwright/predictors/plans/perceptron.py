"""A multilayer perceptron on the numbers of the formats: AMQ's other predictor (Lee et al., EMNLP 2025).

Linear(d, 300), ReLU, twice Linear(300, 300), ReLU, then dropout of 0.2 and Linear(300, 1); Adam at 8e-4, cosine over 2000 epochs of the full batch,
smooth L1; a random fifth of the measured choices is held back and the epoch that is best on it kept. What differs: inputs and values are brought to
mean 0 and deviation 1, so that the bend of the smooth L1 does not depend on the unit; units that never vary count for nothing; and everything is
drawn from a seed of its own. The deviation is the root mean square of the residuals of either half of the choices held back, each at the epoch that
is best on the other half.
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
    """Learns from choices alone. A format's number is its rank among those that its unit is offered: `offered` `(n_units, n_formats)`."""

    offered: NDArray[np.bool_]
    seed: int
    n_epochs: int = 2000

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:  # noqa: ARG002
        """See `Predictor.fit`; `errors` are not used.

        Raises:
            UserError: fewer than ten choices, so fewer than two to hold back.
        """
        require_samples(choices, _NEEDED, "A perceptron, which holds a fifth of them back,")
        numbers = ranks(self.offered, choices)
        inputs, target = _Standard.of(numbers), _Standard.of(values[:, None])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = _network(numbers.shape[1])
            rows = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(values)))
            held_back, used = rows.tensor_split([round(_HELD_BACK * len(values))])
            x, y = inputs(numbers), target(values[:, None])
            residual = _train(network, (x[used], y[used]), (x[held_back], y[held_back]), n_epochs=self.n_epochs)

        @torch.inference_mode()
        def predict(others: Choices) -> tuple[Floats, Floats]:
            mean: Floats = target.back(network(inputs(ranks(self.offered, others))))[:, 0]
            return mean, np.full(len(others), residual * float(target.deviation[0]))

        return predict


@dataclass(frozen=True, eq=False)
class _Standard:
    """Columns brought to mean 0 and deviation 1, float32; what does not vary to 0."""

    mean: Floats
    deviation: Floats

    @staticmethod
    def of(rows: Floats) -> "_Standard":
        """Of `(n, n_columns)`."""
        return _Standard(rows.mean(axis=0), rows.std(axis=0))

    def __call__(self, rows: Floats) -> Torch:
        scaled = np.divide(rows - self.mean, self.deviation, out=np.zeros_like(rows), where=self.deviation > 0)
        return torch.from_numpy(scaled).float()

    def back(self, rows: Torch) -> Floats:
        """The inverse, float64."""
        unscaled: Floats = rows.double().numpy() * self.deviation + self.mean
        return unscaled


def _network(n_inputs: int) -> nn.Module:
    hidden = [nn.Linear(n_inputs, _WIDTH), nn.ReLU(), *(layer for _ in range(2) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.ReLU()))]
    return nn.Sequential(*hidden, nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, 1))


def _train(network: nn.Module, used: tuple[Torch, Torch], held_back: tuple[Torch, Torch], *, n_epochs: int) -> float:
    """Train, put the weights of the epoch that is best on `held_back` back, and return the deviation to expect."""
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
