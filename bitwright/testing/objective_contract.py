"""Contract tests of objectives. Inherit from the contract of the kind and define how to make one:

class TestMine(DistanceContract):       # of next-token distributions, zero for the original
    def objective(self):
        return Mine()
"""

from abc import ABC, abstractmethod
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress import Model, applied, planned_weights
from bitwright.engines import LLAMA_CPP
from bitwright.objectives import ModelObjective, TokenObjective
from bitwright.testing.measuring import levels_of, random_tokens, weights_of
from bitwright.testing.tiny_models import tied_llama

IDS = random_tokens(11, 8).ids
FORMATS = ("Q8_0", "Q5_0", "Q4_0")


def distributions(seed: int, *, n_vocabulary: int = 40, scale: float = 3.0) -> Torch:
    """Draw log-probabilities `(11, 8, n_vocabulary)`, the sharper the larger `scale`."""
    drawn = np.random.default_rng(seed).normal(scale=scale, size=(*IDS.shape, n_vocabulary))
    return torch.from_numpy(drawn).float().log_softmax(dim=-1)


def near(original: Torch, seed: int, distance: float = 0.5) -> Torch:
    """Return log-probabilities not far from others."""
    return (original + distance * torch.from_numpy(np.random.default_rng(seed).normal(size=original.shape)).float()).log_softmax(dim=-1)


def predicted(model: Model) -> Torch:
    """Return the model's log-probabilities on `IDS`."""
    with torch.inference_mode():
        logits: Torch = model.module(torch.from_numpy(IDS), use_cache=False).logits
        return logits.float().log_softmax(dim=-1)


def by_sequence(objective: TokenObjective, original: Torch, changed: Torch, ids: np.ndarray) -> np.ndarray:
    """Return the value of each sequence `(n,)` from log-probabilities `(n, length, n_vocabulary)` of the token after each of `ids` `(n, length)`."""
    following = torch.from_numpy(np.roll(ids, -1, axis=1)).flatten()
    values = objective.token_values(original.flatten(0, 1), changed.flatten(0, 1), following)
    return objective.by_sequence(values.double().numpy().reshape(ids.shape))


class TokenContract(ABC):
    """Contract of objectives computed from next-token distributions."""

    #: how far the mean standard error may be from the deviation of repeated samples
    tolerance = 0.1

    @abstractmethod
    def objective(self) -> TokenObjective:
        """Return the objective under test."""

    def test_it_says_what_it_is(self) -> None:
        """Require a name and a unit."""
        assert self.objective().name
        assert self.objective().unit

    def test_a_number_for_each_sequence_whatever_the_others_are(self) -> None:
        """Require a value for each sequence `(n_sequences,)` that does not depend on the rest of the batch."""
        p, ids = distributions(0), IDS % 40
        q = near(p, 1)
        found = by_sequence(self.objective(), p, q, ids)
        assert (found.shape, str(found.dtype)) == ((11,), "float64")
        alone = [by_sequence(self.objective(), p[i : i + 1], q[i : i + 1], ids[i : i + 1]) for i in range(11)]
        np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-5, atol=1e-7)

    def test_nothing_given_is_changed(self) -> None:
        """Require the tensors handed in to be left unchanged."""
        p = distributions(0)
        q = near(p, 1)
        before = p.clone(), q.clone()
        by_sequence(self.objective(), p, q, IDS % 40)
        assert torch.equal(p, before[0])
        assert torch.equal(q, before[1])

    def test_the_standard_error_is_the_deviation_of_repeated_samples(self) -> None:
        """Require the mean standard error to be within `tolerance` of the deviation over repeated samples."""
        samples = np.random.default_rng(5).lognormal(sigma=0.4, size=(600, 60))
        found = [self.objective().summarise(sample) for sample in samples]
        deviation = np.std([estimate.value for estimate in found], ddof=1)
        assert np.mean([estimate.standard_error for estimate in found]) == pytest.approx(deviation, rel=self.tolerance)

    def test_one_sequence_says_nothing_of_the_error(self) -> None:
        """Require an infinite standard error for one sequence."""
        assert self.objective().summarise(np.array([0.5])).standard_error == inf

    def test_the_same_values_are_summarised_alike(self) -> None:
        """Require equal estimates from equal values."""
        values = np.random.default_rng(1).lognormal(size=40)
        assert self.objective().summarise(values) == self.objective().summarise(values.copy())


class DistanceContract(TokenContract):
    """Contract of objectives that are also a distance from the original."""

    def test_the_original_is_no_distance_from_itself(self) -> None:
        """Require 0 for the original."""
        p = distributions(0)
        np.testing.assert_allclose(by_sequence(self.objective(), p, p, IDS % 40), 0, atol=1e-6)

    def test_rounding_the_original_to_float16_is_next_to_no_distance(self) -> None:
        """Require nearly 0 for the original in half floats."""
        p = distributions(0, n_vocabulary=384)
        found = by_sequence(self.objective(), p.half().float().log_softmax(dim=-1), p, IDS)
        np.testing.assert_allclose(found, 0, atol=1e-5)

    def test_coarser_is_farther(self, tmp_path: Path) -> None:
        """Require larger values for coarser formats of a real model."""
        tied = tied_llama()
        original, levels, found = predicted(tied), levels_of(tied, tmp_path), []
        for name in FORMATS:
            form = LLAMA_CPP.format(name)
            formats = {tensor.name: form for tensor in tied.tensors if tensor.name in tied.pieces and form.fits(tensor.shape)}
            with applied(tied, planned_weights(tied, levels, formats=formats)):
                found.append(self.objective().summarise(by_sequence(self.objective(), original, predicted(tied), IDS)).value)
        assert found == sorted(found)
        assert 0 < 2 * found[0] < found[-1]


class ModelContract(ABC):
    """Contract of objectives that need the model."""

    @abstractmethod
    def objective(self, model: Model) -> ModelObjective:
        """Return the objective under test, made while the model is the original."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Model:
        """Return the model to evaluate."""
        return tied_llama()

    def test_it_says_what_it_is(self, model: Model) -> None:
        """Require a name and a unit."""
        objective = self.objective(model)
        assert objective.name
        assert objective.unit

    def test_the_same_model_is_worth_the_same_again(self, model: Model) -> None:
        """Require the same finite estimate for the same model."""
        objective = self.objective(model)
        found = objective.evaluate_model(model)
        assert np.isfinite(found.value)
        assert found.standard_error >= 0
        assert objective.evaluate_model(model) == found

    def test_the_model_is_left_as_it_was(self, model: Model) -> None:
        """Require the weights and torch's global random generator to be left unchanged."""
        before, generator = weights_of(model), torch.random.get_rng_state()
        self.objective(model).evaluate_model(model)
        assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())
        assert torch.equal(torch.random.get_rng_state(), generator)

    def test_it_sees_the_weights_that_the_model_has_now(self, model: Model) -> None:
        """Require another value for a model with other weights."""
        objective = self.objective(model)
        found = objective.evaluate_model(model)
        noise = np.random.default_rng(3).normal(size=(384, 64)).astype(np.float32)
        with applied(model, {"token_embd.weight": lambda: noise}):
            assert objective.evaluate_model(model) != found
