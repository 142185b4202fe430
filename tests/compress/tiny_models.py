"""Random models of every family, two layers deep, with tokenizers trained on the spot; and llama.cpp to compare them with."""

from io import BytesIO
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
import torch
import xllamacpp
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from bitwright.compress import Source

N_TOKENS = 384
TEXT = [
    "Once upon a time, in 1984, there were three bears; they'd eaten 12 bowls of porridge.\n",
    "def add(x, y):\n    return x + y  # naïve, isn't it?\n\n",
    "The café's menu: crème brûlée (€7.50), 3 crêpes, 日本語の茶.\n",
]
SAMPLES = [
    "Once upon a time",
    "It's 12345 o'clock!\n\n  We said: \"naïve café\" 日本 🙂",
    "def f(x):\n    return x + 1000\n\n\n# they'd\twait",
]

_SHAPE = {
    "vocab_size": N_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_GEMMA = {"head_dim": 32, "tie_word_embeddings": True}
_WINDOWS = {"sliding_window": 8, "query_pre_attn_scalar": 32}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_key_value_heads": 4}

_LATENT = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "routed_scaling_factor": 1.5,
}
_DEEP_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "beta_fast": 32, "beta_slow": 1}

#: DeepSeek-V2-Lite, which llama.cpp knows by its 27 blocks
LITE = ("deepseek_v2", {**_LATENT, "q_lora_rank": None, "topk_method": "greedy", "num_hidden_layers": 27}, "qwen2")

#: name → (model_type, settings, tokenizer)
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama-tied": ("llama", {"tie_word_embeddings": True}, "llama-spm"),
    "llama-untied": ("llama", {}, "llama-bpe"),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}, "gpt-2"),
    "llama3-rope": ("llama", {"rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 32}}, "llama-bpe"),
    "llama-linear-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}}, "smollm"),
    "mistral": ("mistral", {"sliding_window": None}, "llama-spm"),
    "mixtral": ("mixtral", {"num_local_experts": 4}, "llama-spm"),
    "qwen2": ("qwen2", {}, "qwen2"),
    "qwen2-moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 48}, "qwen2"),
    "qwen3": ("qwen3", {"head_dim": 32}, "qwen2"),
    "qwen3-yarn": (
        "qwen3",
        {"head_dim": 32, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}},
        "qwen2",
    ),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "norm_topk_prob": True, "head_dim": 16}, "qwen2"),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4, "intermediate_size": 32}, "qwen2"),
    "deepseek-v2": ("deepseek_v2", {**_LATENT, "q_lora_rank": 48, "topk_method": "greedy"}, "qwen2"),
    "deepseek-v3": (
        "deepseek_v3",
        {
            **_LATENT,
            "q_lora_rank": 48,
            "n_group": 4,
            "topk_group": 2,
            "rope_parameters": {**_DEEP_YARN, "original_max_position_embeddings": 32},
        },
        "deepseek-v3",
    ),
    "gemma": ("gemma", _GEMMA, "gemma-spm"),
    "gemma2": ("gemma2", {**_GEMMA, **_WINDOWS, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}, "gemma-spm"),
    "gemma3": ("gemma3_text", {**_GEMMA, **_WINDOWS, "layer_types": ["sliding_attention", "full_attention"]}, "gemma-spm"),
}

_SPLITS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def module(model_type: str, settings: dict[str, Any], *, dtype: torch.dtype) -> PreTrainedModel:
    """Weights of a size that makes every part of the model matter, rounded to `dtype` and held as float32."""
    config = AutoConfig.for_model(model_type, **{**_SHAPE, **settings})
    built: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            vector = weight + 0.3 * noise if "norm" in name else noise
            weight.copy_(vector if weight.dim() < 2 else noise * (0.15 if weight.shape[0] == N_TOKENS else 1.5 * weight.shape[-1] ** -0.5))
            weight.copy_(weight.to(dtype).float())
        for name, values in built.named_buffers():
            if name.endswith("correction_bias"):
                values.copy_(0.1 * torch.randn(values.shape, generator=generator))
    return built


def byte_level(split: str, expressions: dict[str, tuple[str, ...]]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that splits as llama.cpp's `split` does; `expressions` are those that are not among the library's own steps."""
    steps = _SPLITS.get(split) or [
        *(pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions[split]),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    inner = Tokenizer(models.BPE(ignore_merges=split in ("llama-bpe", "tekken")))
    inner.pre_tokenizer = pre_tokenizers.Sequence(steps)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|begin|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>", unk_token="<|endoftext|>")


def sentence_pieces(folder: Path, kind: str) -> PreTrainedTokenizerBase:
    """A SentencePiece tokenizer of Llama's or Gemma's kind, with its `tokenizer.model` in `folder`."""
    written = BytesIO()
    gemma = kind == "gemma-spm"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=written,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=not gemma,
        minloglevel=2,
        **({"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if gemma else {}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    vocabulary, merges = vocabulary_and_merges(sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()))
    return GemmaTokenizer(vocab=vocabulary, merges=merges) if gemma else LlamaTokenizer(vocab=vocabulary, merges=merges)


def vocabulary_and_merges(processor: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary of a SentencePiece model, and every pair that makes one of its pieces, the best pieces first."""
    vocabulary = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    whole = [i for i in vocabulary.values() if not (processor.is_byte(i) or processor.is_control(i) or processor.is_unknown(i))]
    ranked = [processor.id_to_piece(i) for i in sorted(whole, key=processor.get_score, reverse=True)]
    pairs = ((piece[:cut], piece[cut:]) for piece in ranked for cut in range(1, len(piece)))
    return vocabulary, [(left, right) for left, right in pairs if left in vocabulary and right in vocabulary]


def write_gguf(source: Source, file: Path) -> Path:
    """The source as the simplest possible file."""
    writer = gguf.GGUFWriter(file, source.architecture)
    for entry in source.metadata:
        if entry.key != "general.architecture":  # the writer has put it there already
            writer.add_key_value(entry.key, entry.value, entry.type, entry.item if entry.type == gguf.GGUFValueType.ARRAY else None)
    for tensor in source.tensors:
        kind = gguf.GGMLQuantizationType[tensor.stored]
        bytes_shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        writer.add_tensor(tensor.name, source.stored(tensor).reshape(bytes_shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def serve(file: Path) -> Any:
    """llama.cpp with the model of `file` loaded."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 128, 1, 1  # more of them wait for each other spinning
    # as exact as torch: keys and values rounded to F16, as its flash attention does in any case, may send a token to another expert
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.warmup, parameters.verbosity = False, -1
    return xllamacpp.Server(parameters)


def engine_logprobs(server: Any, prompt: str | list[int]) -> tuple[np.ndarray, int]:
    """log p(next token) in nats `(N_TOKENS,)` after a text or ids, and the number of tokens that the prompt became."""
    # The token that is written is made to be a whole letter: the server leaves out the probabilities of half characters and of ends.
    asked = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": N_TOKENS, "logit_bias": [["a", 1000]]}
    answer = server.handle_completions(asked)
    logprobs = np.full(N_TOKENS, -np.inf)
    for token in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        logprobs[token["id"]] = token["logprob"]
    return logprobs, answer["usage"]["prompt_tokens"]


def torch_logprobs(built: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """Return the log-probabilities by transformers."""
    with torch.inference_mode():
        return built(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p ‖ q) in nats of two arrays of log-probabilities."""
    return float((np.exp(p) * (p - q)).sum())
