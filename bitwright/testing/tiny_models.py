"""Two random models that take a second to make: a Llama whose output head is its token embedding, and a Mixtral of four experts.

They are shared by all tests of a process; no test may leave their weights changed.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from bitwright.compress import Model, load

N_TOKENS = 384
_TEXT = ["Once upon a time, in 1984, there were three bears; they'd eaten 12 bowls of porridge.\n", "The café's menu: crème brûlée (€7.50).\n"]
_SHAPE = {
    "vocab_size": N_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}


@cache
def tied_llama() -> Model:
    """Two dense blocks, and one matrix for the token embedding and the output head."""
    return _made("llama", {"tie_word_embeddings": True})


@cache
def mixtral() -> Model:
    """Two blocks of four experts, two of them for each token."""
    return _made("mixtral", {"tie_word_embeddings": False, "num_local_experts": 4, "num_experts_per_tok": 2})


def _made(model_type: str, settings: dict[str, Any]) -> Model:
    """Return a model of bfloat16 weights, of a size that makes every part of it matter, saved and loaded."""
    config = AutoConfig.for_model(model_type, **_SHAPE, **settings)
    module: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            matrix = noise * (0.15 if weight.shape[0] == N_TOKENS else 1.5 * weight.shape[-1] ** -0.5)
            weight.copy_(weight + 0.3 * noise if "norm" in name else matrix)
    folder = TemporaryDirectory(prefix="bitwright-tiny-")
    _KEPT.append(folder)  # weights are read from the files when they are asked for
    torch.nn.Module.to(module, dtype=torch.bfloat16)
    module.save_pretrained(folder.name)
    _tokenizer().save_pretrained(folder.name)
    return load(str(Path(folder.name)))


#: removed when the process ends
_KEPT: list["TemporaryDirectory[str]"] = []


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer as GPT-2 has it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|begin|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(_TEXT, trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    ends = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "unk_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **ends)  # type: ignore[no-untyped-call]
