from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFValueType

from bitwright.compress import GgufSource, KeyValue, Model
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp import runtime
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.log import why_unusable
from bitwright.engines.llama_cpp.runtime import LlamaCpp, completed
from bitwright.errors import ModelError
from bitwright.objectives import next_token_log_probabilities
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens
from tests.sentences import sentence


@pytest.fixture(scope="module")
def engine(gguf_256: Path) -> LlamaCpp:
    return LlamaCpp(gguf_256, n_vocabulary=tiny.N_TOKENS, n_threads=1)


def test_the_engine_predicts_as_torch_does(engine: LlamaCpp, dense: Model) -> None:
    contexts = [random_tokens(1, n, seed=n).ids[0] for n in (1, 2, 7, 30)]
    expected = next_token_log_probabilities(dense, contexts)
    for context, p in zip(contexts, expected, strict=True):
        q = engine.next_token(context.tolist())
        assert q.shape == (tiny.N_TOKENS,)
        assert np.exp(q).sum() == pytest.approx(1)
        assert 0 <= tiny.divergence(p, q) < 1e-3
    assert tiny.divergence(expected[0], engine.next_token(contexts[1].tolist())) > 0.1  # contexts do differ by far more


def test_a_text_is_read_as_the_tokenizer_reads_it(engine: LlamaCpp, dense: Model) -> None:
    for text in tiny.SAMPLES:
        ids = dense.tokenizer(text)["input_ids"]
        assert tiny.divergence(engine.next_token(ids), engine.next_token(text)) < 1e-4


def test_a_call_does_not_change_the_next(engine: LlamaCpp) -> None:
    context = random_tokens(1, 9).ids[0].tolist()
    first = engine.next_token(context)
    engine.next_token([*context, 5])
    np.testing.assert_allclose(engine.next_token(context), first, atol=1e-4)


def test_contexts_that_begin_with_one_another_are_computed_once(engine: LlamaCpp, dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_tokens(1, 12).ids[0], random_tokens(1, 12, seed=1).ids[0]
    contexts = [second[:4], first, first[:4], second, first[:8]]
    expected, answer, n_computed = next_token_log_probabilities(dense, contexts), LlamaCpp._answer, list[int]()

    def counted(called: LlamaCpp, request: dict[str, Any]) -> dict[str, Any]:
        found = answer(called, request)
        n_computed.append(found["timings"]["prompt_n"])
        return found

    monkeypatch.setattr(LlamaCpp, "_answer", counted)
    for p, q in zip(expected, engine.next_tokens(contexts, expected), strict=True):
        assert 0 <= tiny.divergence(p, q) < 1e-3
    assert sorted(n_computed) == [4, 4, 4, 4, 8]


def test_generation_says_how_fast(engine: LlamaCpp) -> None:
    found = engine.generate("Once upon a time", 8)
    assert found.text
    assert found.tokens_per_second > 0
    assert engine.generate("Once upon a time", 8).text == found.text


@pytest.mark.parametrize("size_bytes", [0, 2_000, 400_000])
def test_a_file_that_is_cut_short_is_refused(gguf_256: Path, tmp_path: Path, size_bytes: int) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf_256.read_bytes()[:size_bytes])
    with pytest.raises(ModelError) as refused:
        LlamaCpp(broken, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    sentence(refused.value, broken)


def test_a_text_longer_than_the_context_is_refused_in_a_sentence(gguf_256: Path) -> None:
    engine = LlamaCpp(gguf_256, n_vocabulary=tiny.N_TOKENS, n_threads=1, context=16)
    with pytest.raises(ModelError) as refused:
        engine.next_token([5] * 2_000)
    sentence(refused.value, gguf_256, "context")
    assert engine.next_token([5] * 4).shape == (tiny.N_TOKENS,)


def test_a_file_that_aborts_llama_cpp_is_told_with_its_last_words(gguf_256: Path, tmp_path: Path) -> None:
    source = GgufSource(gguf_256)
    source.metadata = (*source.metadata, KeyValue("llama.expert_used_count", 4, GGUFValueType.UINT32, GGUFValueType.UINT32))
    path = tmp_path / "aborts.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    told = why_unusable(path, 8)
    assert told.startswith("GGML_ASSERT(")
    assert "n_expert_used" in told
    assert why_unusable(gguf_256, 8) == ""


def test_tokens_that_the_engine_does_not_tell_share_what_is_left() -> None:
    p, q = np.random.default_rng(0).dirichlet(np.ones(50), size=2)
    told = np.where(np.argsort(np.argsort(-q)) < 20, np.log(q), -np.inf)
    head = np.isfinite(told)
    found = completed(told, np.log(p))
    assert np.exp(found).sum() == pytest.approx(1)
    np.testing.assert_allclose(found[head], np.log(q[head]))
    merged_p, merged_q = (np.append(of[head], of[~head].sum()) for of in (p, q))
    assert tiny.divergence(np.log(p), found) == pytest.approx(tiny.divergence(np.log(merged_p), np.log(merged_q)))
    assert np.isfinite(completed(np.append(np.log(q), -np.inf), np.log(np.append(p, 1e-9)))).all()


def test_a_large_vocabulary_is_asked_for_its_most_likely_tokens(engine: LlamaCpp, dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    context = random_tokens(1, 9).ids[0]
    p, whole = next_token_log_probabilities(dense, [context])[0], engine.next_token(context.tolist())
    monkeypatch.setattr(runtime, "REPORTED", 16)
    found = engine.next_token(context.tolist(), p)
    top = np.argsort(-whole)[:16]
    np.testing.assert_allclose(found[top], whole[top], atol=1e-4)
    assert 0 <= tiny.divergence(p, found) <= tiny.divergence(p, whole) + 1e-9
