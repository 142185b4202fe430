from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors
from bitwright.errors import ModelError
from bitwright.objectives import Tokens, draw, is_mixture
from bitwright.predictors.sensitivity.gradients import sweep
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal, Loss, SampledLabels, TextLabels
from bitwright.predictors.sensitivity.gradients.products import AbsoluteProduct, SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.sweep import ORIGINAL, Products, Sweep, measure_products, operating_point
from bitwright.spaces import Choice, Space
from tests.measuring import changed, levels_of, random_tokens, space_of, uniform, weights_of
from tests.predictors.subjects import opened
from tests.sentences import sentence

pytestmark = pytest.mark.slow

MENU = ("Q8_0", "Q4_0")
LOSSES = (SampledLabels(), TextLabels(), FromOriginal())


def products(model: Model, space: Space, *, tokens: Tokens, folder: Path, asked: Sweep, store: str = "a.sqlite") -> Products:
    with opened(model, levels_of(model, folder), space=space, tokens=tokens, store=folder / store, seed=3) as subject:
        return measure_products(subject, asked)


# --- against autograd


def loss_of(loss: Loss, module: Any, *, original: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of one sequence by its definition, in nats over the sequence."""
    found = module(ids[None], use_cache=False).logits[0].log_softmax(dim=-1)
    if loss.name == "from original":
        with torch.no_grad():
            known = original(ids[None], use_cache=False).logits[0].log_softmax(dim=-1)
        return (known.exp() * (known - found)).sum()
    if loss.name == "text labels":
        return -found[:-1].gather(-1, ids[1:, None]).sum()
    return -found.gather(-1, labels[:, None]).sum()


def labels_at(module: Any, tokens: Tokens, at_once: int) -> Iterator[torch.Tensor]:
    """Drawn as by the sweep, from the module in single precision."""
    for i, ids in enumerate(tokens.batches(at_once)):
        with torch.inference_mode():
            probabilities = module.float()(torch.from_numpy(ids), use_cache=False).logits.softmax(dim=-1)
        yield from draw(probabilities.flatten(0, 1), torch.Generator().manual_seed(3 * 1_000_003 + i)).view(ids.shape)


def slopes_at(loss: Loss, module: Any, *, original: Any, tokens: Tokens, labels: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return autograd's gradient with respect to every parameter, for each sequence alone."""
    for weight in module.parameters():
        weight.requires_grad_(True)
    found = []
    for ids, wanted in zip(torch.from_numpy(tokens.ids), labels, strict=True):
        value = loss_of(loss, module, original=original, ids=ids, labels=wanted)
        names, weights = zip(*module.named_parameters(), strict=True)
        found.append(dict(zip(names, torch.autograd.grad(value, weights, allow_unused=True), strict=True)))
    return found


def directly(model: Model, levels: PackedTensors, *, space: Space, at: Choice | None, slopes: list[dict[str, torch.Tensor]]) -> np.ndarray:
    """⟨g, ΔW⟩ `(n_sequences, n_units, n_formats + 1)` by its definition, on whole parameters in torch's layout; going back comes last."""
    original = dict(model.module.named_parameters())
    base = original if at is None else dict(changed(model, levels, space, at).named_parameters())
    found = np.zeros((len(slopes), len(space.units), len(space.formats) + 1))
    targets = {int(f): dict(changed(model, levels, space, uniform(space, space.formats[f].name)).named_parameters()) for f in offered(space)}
    for f, other in (targets | {-1: original}).items():
        for u, unit in enumerate(space.units):
            for piece in (piece for tensor in unit.tensors for piece in model.pieces[tensor.name]):
                change = (piece.matrix(other[piece.parameter]).double() - piece.matrix(base[piece.parameter]).double())[piece.start : piece.stop]
                for s, slope in enumerate(slopes):
                    if slope[piece.parameter] is not None:
                        found[s, u, f] += float((piece.matrix(slope[piece.parameter])[piece.start : piece.stop] * change).sum())
    return found


def copy_of(model: Model) -> Any:
    """The module as it is, in float64."""
    other = deepcopy(model.module).double()
    if is_mixture(model):
        other.set_experts_implementation("eager")
    return other


def offered(space: Space) -> np.ndarray:
    return np.flatnonzero(space.offered.any(axis=0))


def mixed(space: Space) -> Choice:
    """Coarse and fine in turn."""
    return np.where(np.arange(len(space.units)) % 3 > 0, uniform(space, "Q4_0"), uniform(space, "Q8_0"))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize(("name", "at_once"), [("tied", sweep.SEQUENCES_AT_ONCE), ("mixtral", 1), ("dense", sweep.SEQUENCES_AT_ONCE)])
def test_products_are_autograd_s(name: str, at_once: int, *, loss: Loss, quantized: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, levels, tokens = space_of(model, MENU), levels_of(model, tmp_path), random_tokens(6, 6)
    at = mixed(space) if quantized else None
    found = products(model, space, tokens=tokens, folder=tmp_path, asked=Sweep(loss, at=operating_point(space, at) if quantized else ORIGINAL))
    module = changed(model, levels, space, mixed(space)) if quantized else copy_of(model)
    labels = [*labels_at(module, tokens, at_once)]
    slopes = slopes_at(loss, module.double(), original=copy_of(model), tokens=tokens, labels=labels)
    expected = directly(model, levels, space=space, at=at, slopes=slopes)
    assert found.n_tokens == 6
    if not quantized and loss.name == "from original":
        assert np.abs(found.values).max() < 0.05  # the original is where the divergence is least
        return
    scale = np.sqrt((expected**2).mean(axis=0, keepdims=True)) + 1e-12
    np.testing.assert_allclose(found.values / scale[..., :-1], expected[..., :-1] / scale[..., :-1], atol=6e-3)
    np.testing.assert_allclose(found.restored / scale[..., -1], expected[..., -1] / scale[..., -1], atol=6e-3)
    assert (found.restored != 0).any() == quantized
    assert not found.values[:, ~space.offered].any()


def layer_by_layer(model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Σ|G ⊙ ΔW| and Σ (g ⊙ ΔY)² `(n_sequences, n_units)` by their definitions, from what every layer of an untied model took in and put out."""
    module, other = copy_of(model), changed(model, levels, space, uniform(space, form))
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(name: str) -> Any:
        def hook(_: Any, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
            made.retain_grad()
            seen[name] = (given[0], made)

        return hook

    names = {pieces[0].parameter.removesuffix(".weight"): tensor for tensor, pieces in model.pieces.items()}
    for name in names:
        module.get_submodule(name).register_forward_hook(look(name))
    for weight in module.parameters():
        weight.requires_grad_(True)
    units = {unit.tensors[0].name: u for u, unit in enumerate(space.units)}
    absolute, squared = (np.zeros((len(tokens.ids), len(space.units))) for _ in range(2))
    for s, ids in enumerate(torch.from_numpy(tokens.ids)):
        module.zero_grad()
        loss_of(TextLabels(), module, original=module, ids=ids, labels=ids).backward()
        for name, tensor in names.items():
            weight, (x, y) = module.get_submodule(name).weight, seen[name]
            change = (other.get_submodule(name).weight - weight).detach()
            moved = change[x] if x.dtype == torch.int64 else x @ change.T
            absolute[s, units[tensor]] = (weight.grad * change).abs().sum()
            squared[s, units[tensor]] = (y.grad * moved.detach()).square().sum()
    return absolute, squared


def test_other_products_are_their_definitions(dense: Model, tmp_path: Path) -> None:
    space, levels, f = space_of(dense, MENU), levels_of(dense, tmp_path), int(uniform(space_of(dense, MENU), "Q4_0")[0])
    ids = np.stack([np.random.default_rng(s).permutation(300)[:6] + 3 for s in range(5)])  # no token twice: see AbsoluteProduct
    tokens = Tokens(ids, "different")
    known = layer_by_layer(dense, levels, space=space, tokens=tokens, form="Q4_0")
    for product, expected in zip((AbsoluteProduct(), SquaredOutputChange()), known, strict=True):
        found = products(dense, space, tokens=tokens, folder=tmp_path, asked=Sweep(TextLabels(), product))
        np.testing.assert_allclose(found.values[..., f], expected, rtol=1e-3)
        assert expected.min() > 0


def test_the_change_back_is_the_change_to_the_stored_format(tied: Model, tmp_path: Path) -> None:
    """A unit alone in another format changes back to its stored format."""
    space = space_of(tied, ("BF16", "Q4_0"))
    at = np.where(np.arange(len(space.units)) == 2, uniform(space, "Q4_0"), uniform(space, "BF16"))
    found = products(tied, space, tokens=random_tokens(3, 6), folder=tmp_path, asked=Sweep(TextLabels(), at=operating_point(space, at)))
    stored = int(uniform(space, "BF16")[2])
    np.testing.assert_allclose(found.restored[:, 2], found.values[:, 2, stored], rtol=1e-6)
    assert not np.delete(found.restored, 2, axis=1).any()
    assert not found.values[:, 2, at[2]].any()


def test_both_uses_of_a_tied_matrix_count(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up's part is large enough for the test against autograd to fail without it."""
    space, tokens = space_of(tied, ("Q4_0",)), random_tokens(8, 6)
    both = products(tied, space, tokens=tokens, folder=tmp_path, asked=Sweep(SampledLabels()))
    monkeypatch.setattr(sweep.Pricing, "_price_embedding", lambda *_: None)
    head = products(tied, space, tokens=tokens, folder=tmp_path, asked=Sweep(SampledLabels()), store="b.sqlite")
    u = [unit.name for unit in space.units].index("token_embd")
    difference = np.abs(both.values - head.values).max(axis=(0, 2))
    assert difference[u] > 0.1 * np.abs(both.values[:, u]).max()
    assert not np.delete(difference, u).any()


def test_rows_may_come_in_any_chunks(mixtral: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, tokens = space_of(mixtral, ("Q4_0",)), random_tokens(2, 6)
    whole = products(mixtral, space, tokens=tokens, folder=tmp_path, asked=Sweep(SampledLabels()))
    monkeypatch.setattr(sweep, "_CHUNK_BYTES", 4 * 64 * 3 * 7)
    chunked = products(mixtral, space, tokens=tokens, folder=tmp_path, asked=Sweep(SampledLabels()), store="b.sqlite")
    np.testing.assert_allclose(chunked.values, whole.values, rtol=1e-3, atol=1e-5 * np.abs(whole.values).max())


def test_means_are_over_sequences_for_each_token() -> None:
    made = Products(np.array([[[1.0, -2.0]], [[3.0, 0.0]]]), np.array([[5.0], [-1.0]]), 4)
    assert made.per_token().tolist() == [[0.5, -0.25]]
    assert made.restored_per_token().tolist() == [0.5]


# --- the weights afterwards, resuming, and what may not be mixed up


def test_the_model_is_left_as_it_was(tied: Model, tmp_path: Path) -> None:
    space, before = space_of(tied, MENU), weights_of(tied)
    products(tied, space, tokens=random_tokens(3, 6), folder=tmp_path, asked=Sweep(FromOriginal(), at=operating_point(space, mixed(space))))
    assert all(torch.equal(weight, before[name]) for name, weight in tied.module.named_parameters())


def test_formats_are_made_of_the_original_s_weights(tied: Model, tmp_path: Path) -> None:
    """A source may read them from the module, which holds others during the sweep."""
    space = space_of(tied, MENU)
    products(tied, space, tokens=random_tokens(1, 6), folder=tmp_path, asked=Sweep(TextLabels(), at=operating_point(space, uniform(space, "Q4_0"))))
    levels, fresh = levels_of(tied, tmp_path), levels_of(tied, tmp_path / "fresh")
    for unit in space.units:
        form = space.formats[int(uniform(space, "Q8_0")[0])]
        np.testing.assert_array_equal(levels.packed(unit.tensors[0], form), fresh.packed(unit.tensors[0], form))


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a sweep was done again")


def test_a_finished_sweep_is_not_done_again(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, tokens = space_of(tied, ("Q4_0",)), random_tokens(9, 6)
    asked = Sweep(FromOriginal(), at=operating_point(space, uniform(space, "Q4_0")))
    first = products(tied, space, tokens=tokens, folder=tmp_path, asked=asked)
    monkeypatch.setattr(sweep, "priced_batch", refuse)
    monkeypatch.setattr(FromOriginal, "slope", refuse)
    again = products(tied, space, tokens=tokens, folder=tmp_path, asked=asked)
    np.testing.assert_array_equal(again.values, first.values)


def test_an_interrupted_sweep_goes_on_with_the_next_batch(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, tokens = space_of(tied, ("Q4_0",)), random_tokens(2 * sweep.SEQUENCES_AT_ONCE + 1, 6)
    asked = Sweep(SampledLabels(), at=operating_point(space, uniform(space, "Q4_0")))
    whole = products(tied, space, tokens=tokens, folder=tmp_path, asked=asked)
    priced, done = sweep.priced_batch, []

    def interrupted(*given: Any, **named: Any) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(named["batch"].index)
        return priced(*given, **named)

    monkeypatch.setattr(sweep, "priced_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        products(tied, space, tokens=tokens, folder=tmp_path, asked=asked, store="b.sqlite")
    done.clear()
    resumed = products(tied, space, tokens=tokens, folder=tmp_path, asked=asked, store="b.sqlite")
    assert done == [2]
    np.testing.assert_array_equal(resumed.values, whole.values)


def test_sweeps_of_one_store_have_keys_of_their_own(tied: Model, tmp_path: Path) -> None:
    space, tokens = space_of(tied, MENU), random_tokens(3, 6)
    kinds, points = (AbsoluteProduct(), SquaredOutputChange()), (ORIGINAL, operating_point(space, mixed(space)))
    asked = [Sweep(loss, product, at=where) for loss in LOSSES[:2] for product in kinds for where in points]
    found = [products(tied, space, tokens=tokens, folder=tmp_path, asked=one).values for one in asked]
    narrow = space.narrowed(np.arange(len(space.formats)) == uniform(space, "Q4_0")[0])
    found += [products(tied, narrow, tokens=tokens, folder=tmp_path, asked=asked[0]).values]
    found += [products(tied, space, tokens=random_tokens(3, 6, seed=1), folder=tmp_path, asked=asked[0]).values]
    for i, one in enumerate(found):
        assert all(not np.array_equal(one, other) for other in found[:i])


def test_products_that_are_not_finite_are_refused(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(tied, ("Q4_0",))
    monkeypatch.setattr(sweep, "priced_batch", lambda *_, **__: np.full((1, len(space.units), len(space.formats) + 1), np.inf))
    with pytest.raises(ModelError) as refused:
        products(tied, space, tokens=random_tokens(1, 6), folder=tmp_path, asked=Sweep(SampledLabels()))
    sentence(refused.value, "finite", "--sensitivity importance")
