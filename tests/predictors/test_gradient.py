from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Levels, Model
from bitwright.errors import ModelError
from bitwright.objectives import Divergence, Reference, Store, Tokens, draw
from bitwright.predictors import GradientProducts, gradient, measure_products, summed
from bitwright.progress import Silent
from bitwright.spaces import Space
from tests.measuring import changed, levels_of, random_tokens, space_of, uniform
from tests.sentences import sentence

from .contract import TableContract


def products(model: Model, levels: Levels, *, space: Space, tokens: Tokens, store: Path, seed: int = 0) -> GradientProducts:
    opened = Store(store)
    try:
        return measure_products(model, levels, space=space, tokens=tokens, seed=seed, store=opened, progress=Silent())
    finally:
        opened.close()


class TestGradientTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        return products(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite").table()


# --- against autograd


def gradients(model: Model, batch: torch.Tensor, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """For each sequence alone, autograd's gradient of Σ log p(label) with respect to every parameter."""
    parameters = dict(model.module.named_parameters())
    names, found = list(parameters), []
    for weight in parameters.values():
        weight.requires_grad_(True)
    for ids, wanted in zip(batch, labels, strict=True):
        loss = model.module(ids[None], use_cache=False).logits[0].log_softmax(dim=-1).gather(-1, wanted[:, None]).sum()
        found.append(dict(zip(names, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True)))
    for weight in parameters.values():
        weight.requires_grad_(False)
    return found


def directly(model: Model, levels: Levels, *, space: Space, tokens: Tokens, seed: int, at_once: int) -> np.ndarray:
    """⟨g, ΔW⟩ `(n_sequences, n_units, n_formats)` by its definition, on whole parameters in torch's layout."""
    slopes: list[dict[str, torch.Tensor]] = []
    for i, ids in enumerate(tokens.batches(at_once)):
        batch = torch.from_numpy(ids)
        with torch.inference_mode():
            probabilities = model.module(batch, use_cache=False).logits.softmax(dim=-1)
        labels = draw(probabilities.flatten(0, 1), torch.Generator().manual_seed(seed * 1_000_003 + i)).view(batch.shape)
        slopes += gradients(model, batch, labels)
    original = dict(model.module.named_parameters())
    found = np.zeros((len(slopes), *space.offered.shape))
    for f in np.flatnonzero(space.offered.any(axis=0)):
        other = dict(changed(model, levels, space, uniform(space, space.formats[f].name)).named_parameters())
        for u, unit in enumerate(space.units):
            for piece in (piece for tensor in unit.tensors for piece in model.pieces[tensor.name]):
                change = (piece.matrix(other[piece.parameter]) - piece.matrix(original[piece.parameter]))[piece.start : piece.stop]
                for s, slope in enumerate(slopes):
                    if slope[piece.parameter] is not None:
                        found[s, u, f] += float((piece.matrix(slope[piece.parameter])[piece.start : piece.stop] * change).sum())
    return found


@pytest.mark.parametrize(("name", "at_once"), [("tied", gradient._SEQUENCES_AT_ONCE), ("mixtral", 1), ("dense", gradient._SEQUENCES_AT_ONCE)])
def test_products_are_autograd_s(name: str, at_once: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, levels, tokens = space_of(model, ("Q8_0", "Q4_0")), levels_of(model, tmp_path), random_tokens(10, 6)
    found = products(model, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite", seed=3)
    expected = directly(model, levels, space=space, tokens=tokens, seed=3, at_once=at_once)
    assert found.n_tokens == 6
    scale = np.sqrt((expected**2).mean(axis=0, keepdims=True)) + 1e-30
    np.testing.assert_allclose(found.values / scale, expected / scale, atol=2e-3)
    assert (np.abs(expected[:, space.offered]).max(axis=0) > 0).all()
    assert not found.values[:, ~space.offered].any()


def test_both_uses_of_a_tied_matrix_count(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the look-up adds is no small part, so the test against autograd would notice its absence."""
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(8, 6)
    both = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite")
    monkeypatch.setattr(gradient._Products, "_price_embedding", lambda *_: None)
    head = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite")
    u = [unit.name for unit in space.units].index("token_embd")
    difference = np.abs(both.values - head.values).max(axis=(0, 2))
    assert difference[u] > 0.1 * np.abs(both.values[:, u]).max()
    assert not np.delete(difference, u).any()


def test_rows_may_come_in_any_chunks(mixtral: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens = space_of(mixtral, ("Q4_0",)), levels_of(mixtral, tmp_path), random_tokens(2, 6)
    whole = products(mixtral, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite")
    monkeypatch.setattr(gradient, "_CHUNK_BYTES", 4 * 64 * 3 * 7)
    chunked = products(mixtral, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite")
    np.testing.assert_allclose(chunked.values, whole.values, rtol=1e-3, atol=1e-5 * np.abs(whole.values).max())


def test_the_table_is_half_the_mean_square_for_each_token() -> None:
    values = np.array([[[1.0, 0.0]], [[3.0, 0.0]]])  # (2 sequences, 1 unit, 2 formats)
    assert GradientProducts(values, 5).table().tolist() == [[(1 + 9) / 2 / 2 / 5, 0.0]]


# --- resuming and seeds


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a sweep was done again")


def test_a_finished_sweep_is_not_done_again(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(9, 6)
    first = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite")
    monkeypatch.setattr(gradient, "_sweep", refuse)
    again = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite")
    np.testing.assert_array_equal(again.values, first.values)


def test_an_interrupted_sweep_goes_on_with_the_next_batch(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(2 * gradient._SEQUENCES_AT_ONCE + 1, 6)
    whole = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite")
    sweep, done = gradient._sweep, []

    def interrupted(*given: Any, **named: Any) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(named["batch"]))
        return sweep(*given, **named)

    monkeypatch.setattr(gradient, "_sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        products(tied, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite")
    done.clear()
    resumed = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite")
    assert done == [1]
    np.testing.assert_array_equal(resumed.values, whole.values)


def test_the_seed_decides_the_labels(tied: Model, tmp_path: Path) -> None:
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(3, 6)
    first, again, other = (
        products(tied, levels, space=space, tokens=tokens, store=tmp_path / f"{i}.sqlite", seed=seed).values for i, seed in enumerate((1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_products_that_are_no_numbers_are_refused(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path)
    monkeypatch.setattr(gradient, "_sweep", lambda *_, **__: np.full((1, *space.offered.shape), np.inf))
    with pytest.raises(ModelError) as refused:
        products(tied, levels, space=space, tokens=random_tokens(1, 6), store=tmp_path / "a.sqlite")
    sentence(refused.value, "finite", "--sensitivity importance")


# --- against what is measured


def test_the_table_foretells_what_is_measured(tied: Model, tmp_path: Path) -> None:
    """Second order, so for small changes: within a factor of two for each unit, closer for their sum."""
    space, levels, tokens = space_of(tied, ("Q8_0", "Q5_1")), levels_of(tied, tmp_path), random_tokens(48, 12)
    table = products(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite").table()
    objective = Divergence(tied, levels, space=space, reference=Reference(tied, tokens, scratch=tmp_path, progress=Silent()))
    form = int(uniform(space, "Q5_1")[0])
    some = np.arange(0, len(space.units), 2)
    measured = np.array([objective.of_one(u, form) for u in some])
    ratios = table[some, form] / measured
    assert measured.max() / measured.min() > 4  # units that are alike would be foretold by anything
    assert ratios.min() > 0.5
    assert ratios.max() < 2
    assert ratios.mean() == pytest.approx(1, abs=0.25)
    fine = uniform(space, "Q8_0")
    assert summed(table, fine) == pytest.approx(objective(fine).nats_per_token, rel=0.3)
