"""Write one of the two models of the package glassllm (MIT; O. Dias de Farias) as a folder that transformers loads.

Four layers of 128, grouped-query attention of 4 and 2 heads, feed-forward of 341 (which only 11 and 31 divide), tied embeddings, 852,608 weights;
fp16. Its matrices are stored input by output, and its rotary embedding turns neighbouring pairs of a head where `LlamaForCausalLM` turns a pair half
a head apart, so rows of queries and keys change places. Its own tokenizer splits characters by byte-pair merges with a mark for spaces.

    pip download glassllm==0.1.0 --no-deps && python benchmarks/glassllm_model.py glassllm-0.1.0-py3-none-any.whl --language en --out glassllm-en
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.decoders import Metaspace
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
PARTS = {
    "attn.W_Q": "self_attn.q_proj", "attn.W_K": "self_attn.k_proj", "attn.W_V": "self_attn.v_proj", "attn.W_O": "self_attn.o_proj",
    "ffn.W1": "mlp.gate_proj", "ffn.W3": "mlp.up_proj", "ffn.W2": "mlp.down_proj",
}  # fmt: skip


def half_turned(weights: np.ndarray, head: int) -> np.ndarray:
    """Rows `(n_heads × head, width)` with the even rows of each head before the odd ones."""
    n_rows, width = weights.shape
    return weights.reshape(n_rows // head, head // 2, 2, width).swapaxes(1, 2).reshape(n_rows, width)


def state_of(arrays: dict[str, np.ndarray], n_layers: int, head: int) -> dict[str, torch.Tensor]:
    """The state of `LlamaForCausalLM`."""
    state = {"model.embed_tokens.weight": arrays["E"], "model.norm.weight": arrays["norm_f.gamma"]}
    for i in range(n_layers):
        for theirs, ours in PARTS.items():
            matrix = np.ascontiguousarray(arrays[f"blocks.{i}.{theirs}"].T)
            state[f"model.layers.{i}.{ours}.weight"] = half_turned(matrix, head) if theirs in ("attn.W_Q", "attn.W_K") else matrix
        state[f"model.layers.{i}.input_layernorm.weight"] = arrays[f"blocks.{i}.norm1.gamma"]
        state[f"model.layers.{i}.post_attention_layernorm.weight"] = arrays[f"blocks.{i}.norm2.gamma"]
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()}


def tokenizer_of(said: dict) -> PreTrainedTokenizerFast:
    """The tokenizer: spaces are marks, and chunks end before a space or at a line's end."""
    merges = [(first, second) for first, second in said["merges"]]
    vocabulary = [*SPECIALS, *said["alphabet"], *(first + second for first, second in merges)]
    made = Tokenizer(BPE({token: i for i, token in enumerate(vocabulary)}, merges, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|▁*[^▁\n]+|▁+"), "isolated")
    made.decoder = Metaspace(replacement="▁", prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the package's wheel")
    parser.add_argument("--language", choices=("en", "pt"), default="en", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        arrays = dict(np.load(io.BytesIO(wheel.read(f"glassllm/weights/{args.language}.npz"))))
        tokenizer = tokenizer_of(json.loads(wheel.read(f"glassllm/weights/{args.language}.tokenizer.json")))
    said = json.loads(str(arrays["__config__"]))
    head = said["d_model"] // said["n_heads"]
    config = LlamaConfig(
        vocab_size=said["vocab_size"], hidden_size=said["d_model"], intermediate_size=arrays["blocks.0.ffn.W1"].shape[1],
        num_hidden_layers=said["n_layers"], num_attention_heads=said["n_heads"], num_key_value_heads=said["n_kv_heads"],
        max_position_embeddings=said["max_len"], rope_theta=said["rope_base"], rms_norm_eps=said["eps"], tie_word_embeddings=True,
        bos_token_id=2, eos_token_id=3, pad_token_id=0, dtype="float16",
    )  # fmt: skip
    model = LlamaForCausalLM(config).half()
    model.load_state_dict(state_of(arrays, said["n_layers"], head) | {"lm_head.weight": torch.from_numpy(arrays["E"])})
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
