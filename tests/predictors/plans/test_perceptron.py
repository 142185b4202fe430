import numpy as np
import pytest
import torch

from bitwright.predictors.plans.perceptron import PerceptronPredictor, _network, _train
from bitwright.predictors.plans.predictor import Predictor
from bitwright.testing.predictor_contract import PredictorContract
from bitwright.testing.random_plans import additive

pytestmark = pytest.mark.slow


class TestPerceptronPredictor(PredictorContract):
    needed = 10
    exactness = 0.6  # 60 choices are few for 220,000 weights

    def predictor(self, table: np.ndarray) -> Predictor:
        return PerceptronPredictor(np.ones(table.shape, dtype=np.bool_), seed=0, n_epochs=100)


def fitted(seed: int) -> np.ndarray:
    plans = additive(30, noise=0.05)
    return PerceptronPredictor(np.ones(plans.table.shape, dtype=np.bool_), seed, n_epochs=5).fit(*plans.known())(plans.choices)[0]


def test_the_seed_decides_and_the_global_generator_is_not_touched() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = fitted(1)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(fitted(1), first)
    assert not np.allclose(fitted(2), first)


def test_units_that_never_vary_are_ignored() -> None:
    plans = additive(30, noise=0.05)
    choices = plans.choices.copy()
    choices[:, 0] = 1
    predict = PerceptronPredictor(np.ones(plans.table.shape, dtype=np.bool_), 0, n_epochs=5).fit(choices, plans.values, plans.errors)
    other = choices.copy()
    other[:, 0] = 3
    np.testing.assert_array_equal(predict(other)[0], predict(choices)[0])


def test_the_epoch_of_lowest_validation_loss_is_used() -> None:
    """The validation set contradicts the training set, so training only raises the validation loss."""
    inputs = torch.linspace(-1, 1, 8)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(1)
        _train(network, (inputs, torch.full((8, 1), 5.0)), (inputs, torch.zeros(8, 1)), n_epochs=60)
    assert float(network(inputs).detach().abs().max()) < 1
