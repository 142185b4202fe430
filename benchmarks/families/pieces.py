"""Tokenizers trained on the spot, of the two kinds that language models have: byte-level BPE and SentencePiece."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.families.family import N_PIECES
from tests.compress.tiny_models import TEXT, vocabulary_and_merges

_SPECIAL = ["<|endoftext|>", "<|begin|>", "<|end|>", "<|startoftext|>", "<|user|>", "<|assistant|>", "<|observation|>", "[gMASK]", "<sop>", "<unk>"]


def write_tokenizer(kind: str, folder: Path) -> None:
    """Write the tokenizer of a `kind` (see `Family`) into `folder`, for transformers and for llama.cpp's converter."""
    if kind.startswith("bpe"):
        _byte_level(begins=kind == "bpe-bos").save_pretrained(folder)
        return
    model = _trained(kind)
    _described(model, kind).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(model)


@cache
def _byte_level(*, begins: bool) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=N_PIECES, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False))
    if begins:
        inner.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    unknown = {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>", add_bos_token=begins, **unknown)


@cache
def _trained(kind: str) -> bytes:
    """The file `tokenizer.model`."""
    written = BytesIO()
    names = {f"{name}_piece": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, **names} if kind == "gemma" else {}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        model_type="bpe",
        vocab_size=N_PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=kind != "gemma",
        control_symbols=["<|endoftext|>"],
        minloglevel=2,
        **ids,
    )
    return written.getvalue()


def _described(model: bytes, kind: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer for transformers."""
    vocabulary, merges = vocabulary_and_merges(sentencepiece.SentencePieceProcessor(model_proto=model))
    parts: dict[str, Any] = {"vocab": vocabulary, "merges": merges, "add_bos_token": True}
    return GemmaTokenizer(**parts) if kind == "gemma" else LlamaTokenizer(**parts, add_prefix_space=True)
