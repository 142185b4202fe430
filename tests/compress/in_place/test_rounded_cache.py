"""Keys and values in torch against the engine itself, on heads that it turns and heads that it does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.compress import Bytes, Model, load, open_source, quantized_cache
from bitwright.compress.in_place.rounded_cache import cache_rounding, rounded_keys, rounded_values
from bitwright.engines import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.objectives import next_token_log_probabilities
from bitwright.spaces import CacheTypes, Tensor, rotation
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens

pytestmark = pytest.mark.slow

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "interleaved, 32": ("llama", {"head_dim": 32}),
    "interleaved, 64": ("llama", {"head_dim": 64}),
    "halves, 128": ("qwen3", {"head_dim": 128}),
    "windows, 64": ("gemma3_text", {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 8, "tie_word_embeddings": True}),
}
TYPES = [CacheTypes(*pair) for pair in (("Q4_0", "F16"), ("F16", "Q4_0"), ("Q5_1", "IQ4_NL"), ("Q8_0", "Q4_1"), ("Q5_0", "Q5_0"))]
CONTEXTS = [random_tokens(1, n, seed=n).ids[0] for n in (5, 12, 20, 33, 47, 60)]


@pytest.fixture(scope="module", params=SHAPES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A random model, loaded and as a GGUF file."""
    model_type, settings = SHAPES[request.param]
    folder = tmp_path_factory.mktemp("cached")
    tokenizer = tiny.sentence_pieces(folder, "gemma-spm" if "gemma" in model_type else "llama-spm")
    tiny.module(model_type, settings, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_gguf(folder / "model.gguf", Recipe(open_source(str(folder)), {}), _nothing)
    return load(str(folder)), folder / "model.gguf"


def _nothing(tensor: Tensor) -> Bytes:
    raise AssertionError(f"{tensor.name} was to be copied")


def nats(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float(np.mean([tiny.divergence(a, b) for a, b in zip(p, q, strict=True)]))


def test_torch_rounds_keys_and_values_as_the_engine_does(made: tuple[Model, Path]) -> None:
    model, file = made
    original = next_token_log_probabilities(model, CONTEXTS)
    for types in TYPES:
        with quantized_cache(model, types):
            in_torch = next_token_log_probabilities(model, CONTEXTS)
        engine = LlamaCpp(file, n_vocabulary=tiny.N_TOKENS, n_threads=1, cache=types)
        in_engine = np.stack([engine.next_token(context.tolist()) for context in CONTEXTS])
        effect = nats(original, in_engine)
        assert effect > 1e-3
        assert nats(in_torch, in_engine) < 0.4 * effect, types  # independent errors of that size would be twice as far apart as either is
        assert nats(original, in_torch) == pytest.approx(effect, rel=0.4)
    np.testing.assert_array_equal(next_token_log_probabilities(model, CONTEXTS), original)


def test_a_finer_type_costs_less(made: tuple[Model, Path]) -> None:
    model, _ = made
    original = next_token_log_probabilities(model, CONTEXTS)
    found = []
    with cache_rounding(model) as cache:
        for name in ("F16", "Q8_0", "Q5_0", "Q4_0"):
            cache.set_types(CacheTypes(name, name))
            found.append(nats(original, next_token_log_probabilities(model, CONTEXTS)))
    assert found[0] == 0
    assert found == sorted(found)


def test_a_cache_of_its_own_is_left_to_the_model(made: tuple[Model, Path]) -> None:
    model, _ = made
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.inference_mode(), quantized_cache(model, CacheTypes("Q4_0", "Q4_0")):
        rounded = model.module(ids, use_cache=False).logits
        held = model.module(ids[:, :3], use_cache=True, past_key_values=None)
        assert held.past_key_values is not None
    with torch.inference_mode():
        first = model.module(ids[:, :3], use_cache=True)
        with quantized_cache(model, CacheTypes("Q4_0", "Q4_0")):
            rest = model.module(ids[:, 3:], past_key_values=first.past_key_values, use_cache=True).logits
        plain = model.module(ids, use_cache=False).logits
    assert torch.allclose(rest, plain[:, 3:], atol=1e-4)
    assert not torch.allclose(rounded, plain, atol=1e-4)


def test_turning_spreads_an_outlier() -> None:
    states = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    states[:, 5] = 40.0
    error = (rounded_values(states, "Q4_0") - states)[:, :5].abs().mean()
    alone = (rounded_values(states[:, :32].contiguous(), "Q4_0") - states[:, :32])[:, :5].abs().mean()  # 32 numbers are not turned
    assert error < 0.7 * alone


def test_order_matters_to_keys_alone() -> None:
    states = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    one, other = (rounded_keys(states, "Q4_0", interleaved=interleaved) for interleaved in (False, True))
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, atol=0.5)
    assert torch.equal(rounded_keys(states, "F16", interleaved=True), states)


def test_which_heads_are_turned() -> None:
    assert [rotation("Q8_0", head, keys=True) for head in (32, 64, 96, 128, 192, 256, 320)] == [0, 64, 0, 128, 64, 256, 64]
    assert [rotation("Q4_0", head, keys=False) for head in (32, 64, 96, 128, 256)] == [0, 64, 0, 64, 64]
    assert rotation("F16", 64, keys=True) == rotation("BF16", 128, keys=False) == 0
