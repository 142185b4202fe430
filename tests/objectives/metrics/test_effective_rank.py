import numpy as np
import pytest
import torch

from bitwright.compress import Model, applied
from bitwright.objectives import ModelObjective, standard_error
from bitwright.objectives.metrics.effective_rank import EffectiveRank, EffectiveRankDifference, representation_entropies
from bitwright.testing.objective_contract import ModelContract
from tests.measuring import random_tokens

TOKENS = random_tokens(11, 12)


class TestEffectiveRankDifference(ModelContract):
    def objective(self, model: Model) -> ModelObjective:
        return EffectiveRank().prepare(model, TOKENS)


def entropy(states: np.ndarray) -> float:
    """Return the paper's entropy, of the covariance `(n_hidden, n_hidden)` of one sequence's states `(length, n_hidden)`."""
    centred = states - states.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    covariance = sum(np.outer(row, row) for row in unit) / len(unit)
    eigenvalues = np.linalg.eigvalsh(covariance)
    shares = eigenvalues[eigenvalues > 1e-12] / np.trace(covariance)
    return -float(np.sum(shares * np.log(shares)))


@pytest.mark.parametrize("name", ["dense", "tied", "mixtral"])
def test_entropies_are_those_of_the_last_hidden_states(name: str, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    with torch.inference_mode():
        states = model.module(torch.from_numpy(TOKENS.ids), output_hidden_states=True).hidden_states[-1].double().numpy()
    np.testing.assert_allclose(representation_entropies(model, TOKENS), [entropy(rows) for rows in states], rtol=1e-5)


def test_a_rank_is_at_most_the_number_of_states_less_their_mean(tied: Model) -> None:
    ranks = np.exp(representation_entropies(tied, TOKENS))
    assert (ranks > 1).all()
    assert (ranks <= 11 + 1e-6).all()


def test_the_original_is_no_distance_from_itself(tied: Model) -> None:
    found = EffectiveRank().prepare(tied, TOKENS).evaluate_model(tied)
    assert found.value == found.standard_error == 0


def test_the_distance_is_of_the_ranks_and_its_error_of_the_pairs(tied: Model) -> None:
    before = representation_entropies(tied, TOKENS)
    noise = np.random.default_rng(0).normal(size=(384, 64)).astype(np.float32)
    with applied(tied, {"token_embd.weight": lambda: noise}):
        after = representation_entropies(tied, TOKENS)
        there = EffectiveRankDifference(before, TOKENS).evaluate_model(tied)
    back = EffectiveRankDifference(after, TOKENS).evaluate_model(tied)
    assert there.value == pytest.approx(abs(np.exp(after.mean()) - np.exp(before.mean())))
    assert there.value == pytest.approx(back.value) != 0
    assert there.standard_error == pytest.approx(standard_error(np.exp(after.mean()) * after - np.exp(before.mean()) * before))


def test_states_that_are_all_the_same_have_one_direction(tied: Model) -> None:
    with applied(tied, {"token_embd.weight": lambda: np.ones((384, 64), dtype=np.float32)}):
        found = np.exp(representation_entropies(tied, random_tokens(2, 1)))
    assert found.tolist() == [1, 1]
