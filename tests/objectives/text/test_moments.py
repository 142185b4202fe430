from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, load
from bitwright.engines import NATIVE, model_as_held
from bitwright.objectives import MomentsOfText, collect_importance, collect_moments
from bitwright.progress import Silent
from tests.measuring import random_tokens


def test_the_diagonal_is_the_importance_times_the_tokens(llama_tied: Path) -> None:
    model, tokens = load(str(llama_tied)), random_tokens(3, 10)
    names = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.ffn_down.weight", "token_embd.weight"]
    with torch.no_grad(), collect_moments(model, names, weigh=False) as found:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    importance = collect_importance(model, tokens, progress=Silent())
    assert set(found) == set(names)  # the embedding is the head too
    for name in names:
        np.testing.assert_allclose(np.einsum("gcc->gc", found[name]) / 30, importance[name], rtol=1e-4)
        np.testing.assert_allclose(found[name], found[name].swapaxes(1, 2), rtol=1e-4, atol=1e-4)
    assert np.array_equal(found[names[0]], found[names[1]])


def test_each_expert_has_the_moments_of_its_own_tokens(tiny_mixtral: Path) -> None:
    model, tokens = load(str(tiny_mixtral)), random_tokens(2, 12)
    name = "blk.0.ffn_up_exps.weight"
    with torch.no_grad(), collect_moments(model, [name], weigh=False) as found:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    assert found[name].shape[0] == 4
    # two experts for each token: together they see everything twice
    with torch.no_grad(), collect_moments(model, ["blk.0.ffn_gate_inp.weight"], weigh=False) as router:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    np.testing.assert_allclose(found[name].sum(axis=0), 2 * router["blk.0.ffn_gate_inp.weight"][0], rtol=1e-3, atol=1e-3)


def test_tokens_count_by_what_their_errors_are_added_to(llama_tied: Path) -> None:
    model, tokens = load(str(llama_tied)), random_tokens(3, 10)
    names = ["blk.0.attn_k.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight", "token_embd.weight"]
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    layers = model.module.model.layers
    modules = dict(zip(names, (layers[0].self_attn.k_proj, layers[1].self_attn.o_proj, layers[1].mlp.down_proj), strict=False))
    entering: list[torch.Tensor] = []
    layers[1].register_forward_pre_hook(lambda _, given: entering.append(given[0].flatten(0, 1)))
    for name, module in modules.items():
        module.register_forward_hook(lambda _, given, y, name=name: seen.update({name: (given[0].flatten(0, 1), y.flatten(0, 1))}))
    with torch.no_grad(), collect_moments(model, names) as found, collect_moments(model, names, weigh=False) as alike:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    for name, (x, y) in seen.items():
        squares = y.square().mean(dim=1) + (0 if name == names[0] else entering[0].square().mean(dim=1))
        expected = (x.T * squares.rsqrt()) @ x
        expected *= x.square().sum() / expected.trace()
        np.testing.assert_allclose(found[name][0], expected.numpy(), rtol=1e-3, atol=1e-3)
        assert np.trace(found[name][0]) == pytest.approx(np.trace(alike[name][0]), rel=1e-5)
        assert not np.allclose(found[name], alike[name], rtol=1e-2)
    np.testing.assert_allclose(found[names[3]], alike[names[3]], rtol=1e-5)  # the head


def test_a_token_without_any_output_has_a_finite_weight(llama_tied: Path) -> None:
    model, tokens = load(str(llama_tied)), random_tokens(2, 8)
    with torch.no_grad():
        model.module.model.layers[0].self_attn.q_proj.weight.zero_()
    with (
        torch.no_grad(),
        collect_moments(model, ["blk.0.attn_q.weight"]) as found,
        collect_moments(model, ["blk.0.attn_q.weight"], weigh=False) as alike,
    ):
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    np.testing.assert_allclose(found["blk.0.attn_q.weight"], alike["blk.0.attn_q.weight"], rtol=1e-4)


def test_unused_tensors_are_left_out(llama_tied: Path) -> None:
    model = load(str(llama_tied))
    with collect_moments(model, ["blk.0.attn_q.weight"]) as found:
        pass
    assert found == {}


def passes(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each forward pass of the model from here on."""
    counted: list[int] = []
    forward = model.module.forward
    monkeypatch.setattr(model.module, "forward", lambda *a, **k: (counted.append(1), forward(*a, **k))[1])
    return counted


def test_moments_come_a_few_tensors_at_a_time(llama_gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = load(str(llama_gqa)), random_tokens(3, 10)
    names = [tensor.name for tensor in model.tensors if tensor.name in model.pieces]
    with torch.no_grad(), collect_moments(model, names) as all_at_once:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    counted = passes(model, monkeypatch)
    largest = max(moments.nbytes for moments in all_at_once.values())
    some = MomentsOfText(model, tokens, cache_bytes=2 * largest)
    for name in names:
        assert (name in some) == (name in all_at_once)  # the embedding has no inputs
        if name in some:
            assert np.array_equal(some[name], all_at_once[name])
            assert np.array_equal(some[name], all_at_once[name])
    assert 1 < len(counted) < len(names)
    assert "no.weight" not in some
    del counted[:]
    everything = MomentsOfText(model, tokens)
    assert set(everything) == set(all_at_once)
    assert len(everything) == len(all_at_once)
    assert len(counted) == 1


def test_experts_of_their_own_have_the_moments_of_the_stack(tiny_mixtral: Path) -> None:
    model, tokens = load(str(tiny_mixtral)), random_tokens(2, 12)
    whole, apart = MomentsOfText(model, tokens), MomentsOfText(model_as_held(model, NATIVE), tokens)
    for expert in range(4):
        assert np.array_equal(apart[f"blk.1.ffn_down_exps.{expert}.weight"][0], whole["blk.1.ffn_down_exps.weight"][expert])
