"""Tokenizers that llama.cpp reads as the `tokenizers` library does. That both split text alike is tested with the models."""

import shutil
from pathlib import Path

import pytest
import torch
from gguf import TokenType
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from bitwright.compress import open_source
from bitwright.compress.models.checkpoints.hugging_face import HuggingFaceSource, rows_in_memory
from bitwright.compress.models.gguf.gguf_tokenizer import EXPRESSIONS, PRE_TOKENIZERS, tokenizer_entries
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny
from tests.sentences import sentence

CONFIG = AutoConfig.for_model("llama", pad_token_id=7)
TEXT = "I'LL say: \"They'd 1234567890 naïve CamelCase日本語\"...\r\n\n\t  x = [1, 22, 333]; // ¿qué?\n   end  \n"


def values(tokenizer, folder: Path, n_tokens: int = tiny.N_TOKENS):
    return {entry.key: entry.value for entry in tokenizer_entries(tokenizer, CONFIG, folder=folder, n_tokens=n_tokens)}


@pytest.mark.parametrize("split", PRE_TOKENIZERS.values())
def test_llama_cpp_splits_text_alike(split, tmp_path):
    tokenizer = tiny.byte_level(split, EXPRESSIONS)
    module = tiny.module("llama", {}, dtype=torch.float32)
    source = HuggingFaceSource("a model", module, rows_in_memory(module), tokenizer=tokenizer, folder=tmp_path)
    assert {entry.key: entry.value for entry in source.metadata}["tokenizer.ggml.pre"] == split
    server = tiny.serve(tiny.write_gguf(source, tmp_path / "model.gguf"))
    ids = tokenizer(TEXT)["input_ids"]
    from_text, n_tokens = tiny.engine_logprobs(server, TEXT)
    assert n_tokens == len(ids)
    assert abs(tiny.divergence(tiny.engine_logprobs(server, ids)[0], from_text)) < 1e-5


def test_byte_level_entries(tmp_path):
    found = values(tiny.byte_level("smollm", EXPRESSIONS), tmp_path)
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "smollm"
    assert found["tokenizer.ggml.tokens"][:3] == ["<|endoftext|>", "<|begin|>", "<|end|>"]
    assert found["tokenizer.ggml.token_type"][:4] == [TokenType.CONTROL] * 3 + [TokenType.NORMAL]
    assert all(len(merge.split(" ")) == 2 for merge in found["tokenizer.ggml.merges"])
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert found["tokenizer.ggml.unknown_token_id"] == 0
    assert found["tokenizer.ggml.padding_token_id"] == 7  # the tokenizer has none, the configuration does
    assert not found["tokenizer.ggml.add_bos_token"]
    assert "tokenizer.chat_template" not in found


def test_the_vocabulary_is_padded_or_cut_to_the_rows_of_the_embedding(tmp_path):
    tokenizer = tiny.byte_level("gpt-2", EXPRESSIONS)
    n_tokens = len(tokenizer)
    padded = values(tokenizer, tmp_path, n_tokens + 2)
    assert padded["tokenizer.ggml.tokens"][-2:] == [f"[PAD{n_tokens}]", f"[PAD{n_tokens + 1}]"]
    assert padded["tokenizer.ggml.token_type"][-3:] == [TokenType.NORMAL, TokenType.UNUSED, TokenType.UNUSED]
    assert len(values(tokenizer, tmp_path, n_tokens - 1)["tokenizer.ggml.tokens"]) == n_tokens - 1


def test_added_tokens_are_the_users_unless_they_are_special_or_look_so(tmp_path):
    tokenizer = tiny.byte_level("gpt-2", EXPRESSIONS)
    first = len(tokenizer)
    tokenizer.add_tokens(["<tool_call>", "<|fim|>"])
    types = values(tokenizer, tmp_path)["tokenizer.ggml.token_type"]
    assert types[first : first + 2] == [TokenType.USER_DEFINED, TokenType.CONTROL]


def test_what_is_put_around_a_text_is_seen(tmp_path):
    tokenizer = tiny.byte_level("gpt-2", EXPRESSIONS)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 1), ("<|end|>", 2)]
    )
    found = values(tokenizer, tmp_path)
    assert found["tokenizer.ggml.add_bos_token"]
    assert found["tokenizer.ggml.add_eos_token"]


def test_the_chat_template_is_kept(tmp_path):
    tokenizer = tiny.byte_level("gpt-2", EXPRESSIONS)
    tokenizer.chat_template = "{{ messages }}"
    assert values(tokenizer, tmp_path)["tokenizer.chat_template"] == "{{ messages }}"
    tokenizer.chat_template = {"default": "{{ a }}", "tools": "{{ b }}"}
    assert values(tokenizer, tmp_path)["tokenizer.chat_template"] == "{{ a }}"


@pytest.mark.parametrize(("kind", "prefix"), [("llama-spm", True), ("gemma-spm", False)])
def test_sentence_pieces(kind, prefix, tmp_path):
    found = values(tiny.sentence_pieces(tmp_path, kind), tmp_path)
    assert found["tokenizer.ggml.model"] == "llama"
    assert found["tokenizer.ggml.add_space_prefix"] is prefix
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert types[tokens.index("<0x0A>")] == TokenType.BYTE
    assert types[tokens.index("<unk>")] == TokenType.UNKNOWN
    assert types[tokens.index("▁the")] == TokenType.NORMAL
    assert len(tokens) == len(types) == len(found["tokenizer.ggml.scores"]) == tiny.N_TOKENS


def test_scores_from_merges_rank_pieces_as_sentencepiece_does(tmp_path):
    tokenizer = tiny.sentence_pieces(tmp_path, "llama-spm")
    from_file, from_merges = values(tokenizer, tmp_path), values(tokenizer, tmp_path / "elsewhere")
    tokens = from_file["tokenizer.ggml.tokens"]
    merged = [i for i, text in enumerate(tokens) if len(text) > 1 and from_file["tokenizer.ggml.token_type"][i] == TokenType.NORMAL]
    ranked = [sorted(merged, key=lambda i: -found["tokenizer.ggml.scores"][i]) for found in (from_file, from_merges)]
    assert ranked[0] == ranked[1]


def described(**parts) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(vocab={"a": 0}, merges=[], byte_fallback=parts.pop("byte_fallback", False)))
    inner.normalizer, inner.pre_tokenizer = parts.get("normalizer"), parts.get("pre_tokenizer")
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}))), "this one is 'WordLevel'"),
        (described(pre_tokenizer=pre_tokenizers.Whitespace()), r"\(gpt-2, smollm, .*\"Whitespace\".*: convert the model with llama.cpp"),
        (described(), "this one splits by nothing"),
        (described(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False)), "without merges"),
        (described(normalizer=normalizers.Lowercase()), r"this tokenizer does \(Lowercase\)"),
        (described(byte_fallback=True, pre_tokenizer=pre_tokenizers.Punctuation()), "has the step .*Punctuation"),
    ],
)
def test_a_tokenizer_without_a_counterpart_is_refused(tokenizer, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        values(tokenizer, tmp_path)


def test_a_tokenizer_that_is_not_described_is_refused(tmp_path):
    class Slow:
        pass

    with pytest.raises(ModelError, match="'Slow' is not: save the model's fast tokenizer"):
        values(Slow(), tmp_path)


def test_pieces_that_are_no_text_are_refused(llama_tied, tmp_path):
    folder = Path(shutil.copytree(llama_tied, tmp_path / "model"))
    file = folder / "tokenizer.model"
    whole = file.read_bytes()
    assert "▁".encode() in whole
    for broken in (whole.replace("▁".encode(), b"\xff\x96\x81"), whole[: len(whole) // 2] + b"\xff" * 40, b"no model"):
        file.write_bytes(broken)
        with pytest.raises(ModelError) as caught:
            open_source(str(folder))
        sentence(caught.value, file)
