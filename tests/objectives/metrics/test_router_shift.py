"""Router shift, against the routers' own logits."""

import numpy as np
import pytest
import torch

from bitwright.compress import Model, without
from bitwright.errors import ObjectiveError
from bitwright.objectives import parse_objectives
from bitwright.objectives.metrics.router_shift import RouterShift
from tests.measuring import random_tokens
from tests.sentences import sentence

TOKENS = random_tokens(10, 9)


def test_the_original_shifts_nothing(mixtral: Model) -> None:
    objective = RouterShift().prepare(mixtral, TOKENS)
    found = objective.evaluate_model(mixtral)
    assert (found.value, found.standard_error) == (0.0, 0.0)


def test_choices_of_an_expert_that_is_gone_are_shifted(mixtral: Model) -> None:
    """The last layer's router alone is told, so nothing before it changes."""
    objective = RouterShift().prepare(mixtral, TOKENS)
    with without(mixtral, {(1, 2): -1}):
        found = objective.evaluate_model(mixtral)
    by_sequence = (objective.original[1] == 2).sum(axis=(1, 2)) / (2 * 2 * TOKENS.ids.shape[1])
    np.testing.assert_allclose(found.value, by_sequence.mean())
    np.testing.assert_allclose(found.standard_error, by_sequence.std(ddof=1) / len(by_sequence) ** 0.5)
    assert found.value > 0


def test_a_router_that_is_turned_round_shifts_every_choice(mixtral: Model) -> None:
    objective = RouterShift().prepare(mixtral, TOKENS)
    gate = mixtral.module.model.layers[1].mlp.gate.weight
    with torch.no_grad():
        gate.neg_()
        found = objective.evaluate_model(mixtral)
        gate.neg_()
    np.testing.assert_allclose(found.value, 0.5)


def test_a_dense_model_has_no_routers(dense: Model) -> None:
    (objective,) = parse_objectives("router-shift")
    assert objective == RouterShift()
    with pytest.raises(ObjectiveError) as caught:
        RouterShift().prepare(dense, TOKENS)
    sentence(caught.value, "router-shift")
