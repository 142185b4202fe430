"""A transformers model, written down as its source says, computes in llama.cpp what it computes in torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress.models import architectures
from bitwright.compress.models.checkpoints.hugging_face import HuggingFaceSource, rows_in_memory
from bitwright.compress.models.gguf.gguf_tokenizer import EXPRESSIONS
from bitwright.engines import LLAMA_CPP, as_held
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny

TOLERANCE = 2e-5  # nats


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PreTrainedTokenizerBase, Path]]:
    root = tmp_path_factory.mktemp("tokenizers")
    pieces = {kind: (tiny.sentence_pieces(root / kind, kind), root / kind) for kind in ("llama-spm", "gemma-spm")}
    return pieces | {kind: (tiny.byte_level(kind, EXPRESSIONS), root) for kind in ("gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-v3")}


def built(family: str, tokenizers, dtype: torch.dtype) -> tuple[HuggingFaceSource, PreTrainedModel, PreTrainedTokenizerBase]:
    return of_config(tiny.FAMILIES[family], family, tokenizers, dtype)


def of_config(described, family: str, tokenizers, dtype: torch.dtype) -> tuple[HuggingFaceSource, PreTrainedModel, PreTrainedTokenizerBase]:
    model_type, settings, kind = described
    tokenizer, folder = tokenizers[kind]
    module = tiny.module(model_type, settings, dtype=dtype)
    return HuggingFaceSource(f"folder/{family}", module, rows_in_memory(module), tokenizer=tokenizer, folder=folder), module, tokenizer


def divergences(source, module, tokenizer, file: Path) -> list[float]:
    """KL(torch ‖ llama.cpp) in nats after each sample, given as ids."""
    server = tiny.serve(tiny.write_gguf(as_held(source, LLAMA_CPP), file))
    ids = [tokenizer(text)["input_ids"] for text in tiny.SAMPLES]
    return [tiny.divergence(tiny.torch_logprobs(module, each), tiny.engine_logprobs(server, each)[0]) for each in ids]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_llama_cpp_computes_the_same_from_ids_and_from_text(family, tokenizers, tmp_path):
    source, module, tokenizer = built(family, tokenizers, torch.float32)
    server = tiny.serve(tiny.write_gguf(as_held(source, LLAMA_CPP), tmp_path / "model.gguf"))
    for text in tiny.SAMPLES:
        ids = tokenizer(text)["input_ids"]
        expected = tiny.torch_logprobs(module, ids)
        from_ids, _ = tiny.engine_logprobs(server, ids)
        from_text, n_tokens = tiny.engine_logprobs(server, text)
        assert n_tokens == len(ids)
        assert abs(tiny.divergence(expected, from_ids)) < TOLERANCE
        assert abs(tiny.divergence(expected, from_text)) < TOLERANCE


@pytest.mark.parametrize(
    ("family", "broken"),
    [
        ("llama-untied", {"rotary_interleaved": False}),
        ("gemma", {"norms_plus_one": False}),
        ("gemma3", {"sliding": False}),
    ],
)
def test_the_comparison_notices_a_wrong_row_of_the_table(family, broken, tokenizers, tmp_path, monkeypatch):
    name = architectures.MODEL_TYPES[tiny.FAMILIES[family][0]]
    monkeypatch.setitem(architectures.ARCHITECTURES, name, replace(architectures.ARCHITECTURES[name], **broken))
    assert max(divergences(*built(family, tokenizers, torch.float32), tmp_path / "model.gguf")) > 100 * TOLERANCE


@pytest.mark.slow
def test_a_light_deepseek_has_no_narrow_queries(tokenizers, tmp_path):
    assert max(map(abs, divergences(*of_config(tiny.LITE, "lite", tokenizers, torch.float32), tmp_path / "model.gguf"))) < TOLERANCE


@pytest.mark.parametrize(
    ("family", "changed", "sentence"),
    [
        ("deepseek-v2", {"q_lora_rank": None}, "26 or 27 blocks; this model has 3 and no q_lora_rank"),
        ("deepseek-v2", {"n_group": 2}, "this model has n_group = 2"),
    ],
)
def test_a_deepseek_that_llama_cpp_computes_otherwise_is_refused(family, changed, sentence, tokenizers):
    model_type, settings, kind = tiny.FAMILIES[family]
    with pytest.raises(ModelError, match=sentence):
        of_config((model_type, {**settings, **changed}, kind), family, tokenizers, torch.float32)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float32, "F32")])
def test_matrices_are_stored_in_the_narrowest_format_that_loses_nothing(dtype, stored, tokenizers, tmp_path):
    source, module, tokenizer = built("mixtral", tokenizers, dtype)
    formats = {tensor.name: tensor.stored for tensor in source.tensors}
    assert formats["blk.0.ffn_gate_exps.weight"] == formats["token_embd.weight"] == formats["output.weight"] == stored
    assert formats["blk.0.ffn_gate_inp.weight"] == formats["blk.1.attn_norm.weight"] == "F32"
    # ggml rounds activations to 16 bits too where the weights have 16, so the tolerance is wider than for F32
    assert max(map(abs, divergences(source, module, tokenizer, tmp_path / "model.gguf"))) < 3e-4


def test_stored_bytes_expand_to_what_is_read(tokenizers):
    source, _, _ = built("gemma", tokenizers, torch.bfloat16)
    for tensor in source.tensors:
        weights = source.read(tensor)
        assert weights.dtype == np.float32
        assert weights.shape == (int(np.prod(tensor.shape[:-1])), tensor.shape[-1])
        kind = torch.bfloat16 if tensor.stored == "BF16" else torch.float32
        back = torch.frombuffer(bytearray(source.stored(tensor).tobytes()), dtype=kind).float().numpy()
        assert np.array_equal(back.reshape(weights.shape), weights)


@pytest.mark.parametrize("family", ["llama-untied", "llama-biases", "qwen2", "gemma2", "gemma3"])
def test_a_module_that_transformers_read_from_the_file_is_bound_alike(family, tokenizers, tmp_path):
    source, module, _ = built(family, tokenizers, torch.float32)
    file = tiny.write_gguf(as_held(source, LLAMA_CPP), tmp_path / "model.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    pieces = architectures.bind(read, source.architecture)
    assert pieces == architectures.bind(module, source.architecture)
    for tensor in source.tensors:
        if tensor.name in pieces:
            rows = torch.cat([piece.to_engine(read.get_parameter(piece.parameter).detach()) for piece in pieces[tensor.name]])
            assert np.array_equal(rows.numpy(), source.read(tensor))


def test_gemma_norms_are_stored_plus_one(tokenizers):
    source, module, _ = built("gemma", tokenizers, torch.float32)
    norm = next(tensor for tensor in source.tensors if tensor.name == "output_norm.weight")
    assert np.array_equal(source.read(norm)[0], module.get_parameter("model.norm.weight").detach().numpy() + np.float32(1))


def test_tensors_come_in_file_order(tokenizers):
    source, _, _ = built("llama3-rope", tokenizers, torch.float32)
    names = [tensor.name for tensor in source.tensors]
    assert names[:4] == ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"]
    assert [int(name.split(".")[1]) for name in names[4:]] == [0] * 9 + [1] * 9
    assert len(set(names)) == len(names)


def test_a_tied_head_is_not_written_twice(tokenizers):
    source, _, _ = built("llama-tied", tokenizers, torch.float32)
    assert "output.weight" not in {tensor.name for tensor in source.tensors}


def test_llama3_factors_are_one_for_fast_frequencies_and_the_full_factor_for_slow_ones(tokenizers):
    source, _, _ = built("llama3-rope", tokenizers, torch.float32)
    factors = source.read(next(tensor for tensor in source.tensors if tensor.name == "rope_freqs.weight"))[0]
    assert factors.shape == (8,)
    assert factors[0] == pytest.approx(1.0, rel=1e-6)
    assert factors[-1] == pytest.approx(8.0, rel=1e-6)
    assert (np.diff(factors) > -1e-6).all()


def test_the_fingerprint_names_the_weights(tokenizers):
    first, _, _ = built("qwen3", tokenizers, torch.float32)
    again, module, tokenizer = built("qwen3", tokenizers, torch.float32)
    assert first.fingerprint == again.fingerprint
    with torch.no_grad():
        module.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 5] += 1
    changed = HuggingFaceSource("folder/qwen3", module, rows_in_memory(module), tokenizer=tokenizer, folder=tokenizers["qwen2"][1])
    assert changed.fingerprint != first.fingerprint
