from pathlib import Path

import numpy as np
import torch

from bitwright.compress import load
from bitwright.objectives import collect_importance, gathered_moments
from bitwright.progress import Silent
from tests.measuring import random_tokens


def test_the_diagonal_is_the_importance_times_the_tokens(llama_tied: Path) -> None:
    model, tokens = load(str(llama_tied)), random_tokens(3, 10)
    names = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.ffn_down.weight", "token_embd.weight"]
    with torch.no_grad(), gathered_moments(model, names) as found:
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
    with torch.no_grad(), gathered_moments(model, [name]) as found:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    assert found[name].shape[0] == 4
    # two experts for each token: together they see everything twice
    with torch.no_grad(), gathered_moments(model, ["blk.0.ffn_gate_inp.weight"]) as router:
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    np.testing.assert_allclose(found[name].sum(axis=0), 2 * router["blk.0.ffn_gate_inp.weight"][0], rtol=1e-3, atol=1e-3)


def test_what_was_not_used_is_left_out(llama_tied: Path) -> None:
    model = load(str(llama_tied))
    with gathered_moments(model, ["blk.0.attn_q.weight"]) as found:
        pass
    assert found == {}
