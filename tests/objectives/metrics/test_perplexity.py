from math import exp, inf, sqrt

import numpy as np
import pytest
import torch

from bitwright.objectives import TokenObjective
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.testing.objective_contract import IDS, TokenContract, by_sequence, distributions


class TestPerplexity(TokenContract):
    def objective(self) -> TokenObjective:
        return Perplexity()


def test_losses_are_of_every_token_but_the_first() -> None:
    q, ids = distributions(0), IDS % 40
    expected = [-np.mean([float(q[i, t, ids[i, t + 1]]) for t in range(7)]) for i in range(11)]
    np.testing.assert_allclose(by_sequence(Perplexity(), q, q, ids), expected, rtol=1e-5)


def test_the_original_does_not_matter() -> None:
    q, ids = distributions(0), IDS % 40
    assert by_sequence(Perplexity(), distributions(1), q, ids).tolist() == by_sequence(Perplexity(), q, q, ids).tolist()


def test_a_model_that_knows_nothing_is_as_perplexed_as_it_has_tokens() -> None:
    q = torch.zeros(11, 8, 40).log_softmax(dim=-1)
    assert Perplexity().summarise(by_sequence(Perplexity(), q, q, IDS % 40)).value == pytest.approx(40)


def test_the_standard_error_is_the_perplexity_times_that_of_the_loss() -> None:
    found = Perplexity().summarise(np.array([1.0, 2.0, 6.0]))
    assert found.value == pytest.approx(exp(3))
    assert found.standard_error == pytest.approx(exp(3) * sqrt(14 / 2 / 3))


def test_the_most_broken_model_has_a_perplexity_too() -> None:
    found = Perplexity().summarise(np.array([1e6, 2e6]))
    assert 1e300 < found.value < inf
