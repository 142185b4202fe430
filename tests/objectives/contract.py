"""Contract tests of callables that measure choices. Inherit from `ObjectiveContract` and define how to make one:

class TestMine(ObjectiveContract):
    def objective(self, model, levels, *, space, tokens, scratch):
        return MyObjective(model, levels, space, tokens)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Measurement, Tokens
from bitwright.spaces import Choice, Space
from tests.measuring import levels_of, random_tokens, space_of, uniform, weights_of

MENU = ("BF16", "Q8_0", "Q5_0", "Q4_0")
TOKENS = random_tokens(11, 8)


class ObjectiveContract(ABC):
    """Contract of a measured distance from the original."""

    @abstractmethod
    def objective(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, scratch: Path) -> Callable[[Choice], Measurement]:
        """The objective under test."""

    @pytest.fixture
    def space(self, tied: Model) -> Space:
        """Space of the tied model."""
        return space_of(tied, MENU)

    @pytest.fixture
    def made(self, tied: Model, space: Space, tmp_path: Path) -> Callable[[Choice], Measurement]:
        """Objective on the tied model."""
        return self.objective(tied, levels_of(tied, tmp_path / "levels"), space=space, tokens=TOKENS, scratch=tmp_path)

    def test_the_original_is_no_distance_from_itself(self, made: Callable[[Choice], Measurement], space: Space) -> None:
        found = made(uniform(space, "BF16"))
        assert abs(found.nats_per_token) < 1e-5
        assert found.top1_agreement == 1

    def test_coarser_is_farther(self, made: Callable[[Choice], Measurement], space: Space) -> None:
        found = [made(uniform(space, form)).nats_per_token for form in MENU]
        assert found == sorted(found)
        assert found[1] > 0
        assert found[-1] > 3 * found[1]

    def test_a_record_says_what_was_measured(self, made: Callable[[Choice], Measurement], space: Space) -> None:
        choice = uniform(space, "Q5_0")
        found = made(choice)
        assert found.choice == tuple(choice.tolist())
        assert all(type(i) is int for i in found.choice)
        assert (len(found.by_sequence), found.n_tokens) == (11, TOKENS.n_tokens)
        assert 0 <= found.top1_agreement <= 1
        assert found.perplexity >= 1
        assert found.seconds > 0

    def test_the_same_choice_is_worth_the_same_again(self, made: Callable[[Choice], Measurement], space: Space) -> None:
        choice = uniform(space, "Q4_0")
        first = made(choice)
        made(uniform(space, "Q8_0"))
        assert made(choice).estimates == first.estimates

    def test_the_model_is_left_as_it_was(self, made: Callable[[Choice], Measurement], space: Space, tied: Model) -> None:
        before = weights_of(tied)
        made(uniform(space, "Q4_0"))
        assert all(torch.equal(weight, before[name]) for name, weight in tied.module.named_parameters())
