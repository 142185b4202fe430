from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors, applied
from bitwright.errors import ModelError
from bitwright.objectives import KullbackLeibler, Measurement, Reference, Tokens, next_token_log_probabilities
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.metrics.rank_correlation import Kendall
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space
from bitwright.testing.objective_contract import by_sequence
from bitwright.whole_files import reserve
from tests.measuring import Divergence, changed, levels_of, random_tokens, space_of, uniform, weights_of
from tests.objectives.contract import ObjectiveContract
from tests.sentences import sentence

TOKENS = random_tokens(11, 12)
BOUND = "bitwright.objectives.reference.MEMORY_BOUND_BYTES"


class TestDivergence(ObjectiveContract):
    def objective(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, scratch: Path) -> Callable[[Choice], Measurement]:
        return Divergence(model, levels, space=space, reference=Reference(model, tokens, scratch=scratch, progress=Silent()))


class TestDivergenceWithItsReferenceInAFile(TestDivergence):
    @pytest.fixture(autouse=True)
    def _no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BOUND, 1)


def log_probabilities(module: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(ids), use_cache=False).logits.double().log_softmax(dim=-1).numpy()


def mixed(space: Space) -> Choice:
    """Every unit in another format than the one before it."""
    return np.array([np.flatnonzero(row)[u % row.sum()] for u, row in enumerate(space.offered)])


@pytest.mark.parametrize("name", ["dense", "tied", "mixtral"])
def test_equals_a_direct_computation(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, levels = space_of(model, ("Q8_0", "Q5_1", "Q4_0")), levels_of(model, tmp_path)
    choice = mixed(space)
    reference = Reference(model, TOKENS, scratch=tmp_path, progress=Silent())
    found = Divergence(model, levels, space=space, reference=reference)(choice)
    other = changed(model, levels, space, choice)
    p, q = log_probabilities(model.module, TOKENS.ids), log_probabilities(other, TOKENS.ids)
    nats = (np.exp(p) * (p - q)).sum(axis=-1)
    np.testing.assert_allclose(found.by_sequence[:, 0], nats.mean(axis=1), atol=1e-4, rtol=2e-3)
    assert found.nats_per_token == pytest.approx(nats.mean(), abs=2e-5, rel=1e-3)
    assert found.nats_per_token > 0.003
    labels = np.take_along_axis(q[:, :-1], TOKENS.ids[:, 1:, None], axis=-1)
    assert found.perplexity == pytest.approx(np.exp(-labels.mean()), rel=1e-4)
    assert found.top1_agreement == pytest.approx((p.argmax(axis=-1) == q.argmax(axis=-1)).mean(), abs=0.01)
    originals = np.take_along_axis(p[:, :-1], TOKENS.ids[:, 1:, None], axis=-1)
    assert reference.perplexity == pytest.approx(np.exp(-originals.mean()), rel=1e-5)


def test_one_unit_is_measured_with_all_others_as_they_were(tied: Model, tmp_path: Path) -> None:
    space, levels = space_of(tied, ("BF16", "Q4_0")), levels_of(tied, tmp_path)
    objective = Divergence(tied, levels, space=space, reference=Reference(tied, TOKENS, scratch=tmp_path, progress=Silent()))
    original, coarse = uniform(space, "BF16"), uniform(space, "Q4_0")
    some = range(0, len(space.units), 4)
    found = [objective.of_one(u, int(coarse[u])) for u in some]
    expected = []
    for u in some:
        choice = original.copy()
        choice[u] = coarse[u]
        expected.append(objective(choice).nats_per_token)
    assert found == expected
    assert min(found) > 0
    assert objective.of_one(0, int(original[0])) == pytest.approx(0, abs=1e-5)


# --- the original's predictions


def test_beyond_the_bound_the_predictions_are_in_a_file(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Reference(tied, TOKENS, scratch=tmp_path / "a", progress=Silent())
    assert not (tmp_path / "a").exists()
    exact_bytes = 2 * TOKENS.n_tokens * 384
    monkeypatch.setattr(BOUND, exact_bytes)
    Reference(tied, TOKENS, scratch=tmp_path / "b", progress=Silent())
    assert not (tmp_path / "b").exists()
    reserved: list[int] = []

    def noted(file: int, n_bytes: int) -> None:
        reserved.append(n_bytes)
        reserve(file, n_bytes)

    monkeypatch.setattr("bitwright.objectives.reference.reserve", noted)
    monkeypatch.setattr(BOUND, exact_bytes - 1)
    outside = Reference(tied, TOKENS, scratch=tmp_path / "c", progress=Silent())
    assert reserved == [exact_bytes]
    assert not list((tmp_path / "c").iterdir())  # a file without a name, which no killed process leaves
    assert torch.equal(*(kept.sequences(0, 11, tied.device) for kept in (inside, outside)))
    assert inside.perplexity == outside.perplexity
    outside.discard()
    assert outside.sequences(0, 11, tied.device).shape[0] == 0
    inside.discard()


def test_long_sequences_are_read_few_at_a_time(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    hook = tied.module.register_forward_pre_hook(lambda _, inputs: read.append(len(inputs[0])))
    whole = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    assert read == [8, 3]
    monkeypatch.setattr("bitwright.objectives.reference._TOKENS_AT_ONCE", 2 * TOKENS.ids.shape[1] + 1)
    read.clear()
    few = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    assert read == [2, 2, 2, 2, 2, 1]
    read.clear()
    few.compare(tied, (KullbackLeibler(),), first=4, stop=9)
    hook.remove()
    assert read == [2, 2, 1]
    torch.testing.assert_close(*(kept.sequences(0, 11, tied.device) for kept in (whole, few)), atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("n_positions", [1, 5, 1000])
def test_any_number_of_positions_at_a_time_gives_the_same(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_positions: int) -> None:
    objectives, noise = (KullbackLeibler(), Perplexity(), Kendall(4)), np.random.default_rng(3).normal(size=(384, 64)).astype(np.float32)
    expected = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    monkeypatch.setattr("bitwright.objectives.reference._PIECE_BYTES", n_positions * 4 * 384)
    found = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    assert torch.equal(*(kept.sequences(0, 11, tied.device) for kept in (expected, found)))
    assert found.perplexity == pytest.approx(expected.perplexity)
    with applied(tied, {"token_embd.weight": lambda: noise}):
        of_some, of_all = found.compare(tied, objectives, first=3, stop=10), expected.compare(tied, objectives)
        p, q = expected.sequences(0, 11, tied.device), torch.from_numpy(log_probabilities(tied.module, TOKENS.ids)).float()
    for objective, some, whole in zip(objectives, of_some, of_all, strict=True):
        assert (some.shape, whole.shape) == ((7, 12), (11, 12))
        np.testing.assert_allclose(objective.by_sequence(whole), by_sequence(objective, p, q, TOKENS.ids), rtol=1e-4)
        np.testing.assert_allclose(objective.by_sequence(some), objective.by_sequence(whole)[3:10], rtol=1e-4)


def test_predictions_are_distributions_close_to_the_model_s(tied: Model, tmp_path: Path) -> None:
    reference = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    p = reference.sequences(0, 11, tied.device)
    assert p.shape == (11, 12, 384)
    torch.testing.assert_close(p.exp().sum(dim=-1), torch.ones(11, 12))
    np.testing.assert_allclose(p.double().numpy(), log_probabilities(tied.module, TOKENS.ids), atol=0.01)


# --- a model that is broken


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_logits_that_are_not_finite_is_refused(tied: Model, tmp_path: Path, value: float) -> None:
    space, before = space_of(tied, ("BF16", "Q8_0")), weights_of(tied)
    reference = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
    with applied(tied, {"token_embd.weight": lambda: np.full((384, 64), value, dtype=np.float32)}):
        with pytest.raises(ModelError) as refused:
            Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
        sentence(refused.value, "finite")
        with pytest.raises(ModelError):
            Divergence(tied, levels_of(tied, tmp_path), space=space, reference=reference).of_one(1, 3)
    assert all(torch.equal(weight, before[name]) for name, weight in tied.module.named_parameters())


# --- next tokens


def test_contexts_of_different_lengths_do_not_touch_each_other(dense: Model) -> None:
    contexts = [random_tokens(1, n, seed=i).ids[0] for i, n in enumerate((3, 9, 1, 9, 5, 2, 7, 4, 12, 1, 6))]
    found = next_token_log_probabilities(dense, contexts)
    assert found.shape == (11, 384)
    assert found.dtype == np.float64
    for context, row in zip(contexts, found, strict=True):
        np.testing.assert_allclose(row, log_probabilities(dense.module, context[None])[0, -1], atol=1e-4)


def test_a_context_that_another_begins_with_takes_no_pass_of_its_own(dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    longest, other = random_tokens(1, 9, seed=1).ids[0], random_tokens(1, 7, seed=2).ids[0]
    contexts, forward, shapes = [longest[:4], other, longest, longest[:1]], dense.module.forward, list[tuple[int, ...]]()

    def counted(ids: torch.Tensor, **settings: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return forward(ids, **settings)

    monkeypatch.setattr(dense.module, "forward", counted)
    found = next_token_log_probabilities(dense, contexts)
    assert shapes == [(2, 9)]
    for context, row in zip(contexts, found, strict=True):
        np.testing.assert_allclose(row, log_probabilities(dense.module, context[None])[0, -1], atol=1e-4)
