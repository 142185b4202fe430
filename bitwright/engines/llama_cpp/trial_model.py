"""Models made on the spot, to time an engine with: Llama's shape and a vocabulary of bytes and made-up words, or the first layers of a model's own.

What an engine does for a token does not depend on what the weights are, so they are random: a few rows are packed in each format and repeated.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf import GGUFValueType

from bitwright.compress import Bytes, Codec, Floats, KeyValue, Source
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.spaces import Tensor, discover

_ROWS = 64  # packed once and repeated
_N_BYTES, _WORD, _CONTROL, _UNKNOWN, _BYTE = 256, 1, 3, 2, 6
_STORED, _LLAMA = "F32", "llama"
_BLOCK = re.compile(r"blk\.(\d+)\.")
_CONTEXT = 2048


@dataclass(frozen=True)
class TrialShape:
    """Sizes of the model: all multiples of 256, so that every format fits."""

    n_layers: int
    width: int = 1024
    feed_forward_width: int = 2816
    n_heads: int = 16
    n_vocabulary: int = 1024


class TrialModel(Source):
    """Random weights of the shapes of `tensors`, drawn by a seed: what an engine takes for the model that the metadata describes."""

    def __init__(self, architecture: str, metadata: Iterable[KeyValue], tensors: Iterable[Tensor], *, seed: int) -> None:
        self.architecture, self.metadata, self.tensors = architecture, tuple(metadata), tuple(tensors)
        self.name = self.fingerprint = f"trial of {architecture}, seed {seed}"
        self._rng = np.random.default_rng(seed)

    def read(self, tensor: Tensor) -> Floats:
        """Draw random weights `(n_rows, n_columns)` float32; a vector is ones."""
        if len(tensor.shape) < 2:
            return np.ones((1, tensor.shape[0]), dtype=np.float32)
        rows = self._rng.standard_normal((min(_ROWS, tensor.shape[0]), tensor.shape[-1]), dtype=np.float32) * tensor.shape[-1] ** -0.5
        return np.resize(rows, (tensor.n_weights // tensor.shape[-1], tensor.shape[-1]))

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the random weights as bytes `(n_bytes,)`."""
        return self.read(tensor).view(np.uint8).reshape(-1)


def trial_of_shape(shape: TrialShape, seed: int) -> TrialModel:
    """Return a model of Llama's shape."""
    return TrialModel(_LLAMA, _metadata(shape), _tensors(shape), seed=seed)


def trial_of_model(source: Source, n_layers: int, seed: int) -> TrialModel:
    """Return the first `n_layers` layers of a model, its embedding and its head, in their shapes."""
    n_all = n_layers_of(source)
    tensors = (replace(tensor, stored=_STORED) for tensor in source.tensors if _layer(tensor) < n_layers)
    return TrialModel(source.architecture, (_shortened(entry, n_all, n_layers) for entry in source.metadata), tensors, seed=seed)


def n_layers_of(source: Source) -> int:
    """Number of blocks, by the names of the tensors."""
    return 1 + max(_layer(tensor) for tensor in source.tensors)


def trial_matrices(source: Source) -> tuple[Tensor, ...]:
    """Return the tensors of a model that may be stored in any format that divides their rows."""
    return tuple(tensor for unit in discover(source.tensors) for tensor in unit.tensors)


def write_trial(path: Path, source: TrialModel, formats: dict[str, str], codec: Codec) -> None:
    """Write the model with its matrices in `formats`.

    Raises:
        OutputError: the file cannot be written.
    """
    known: dict[tuple[str, int], Bytes] = {}

    def packed(tensor: Tensor) -> Bytes:
        form, n_columns = LLAMA_CPP.format(formats[tensor.name]), tensor.shape[-1]
        key = (form.name, n_columns)
        if key not in known:
            few = Tensor(tensor.name, (_ROWS, n_columns), _STORED)
            known[key] = codec.encode(source.read(few), form, np.ones((1, n_columns), np.float32))
        return np.resize(known[key], form.size_bytes(tensor.shape))

    write_gguf(path, Recipe(source, formats), packed)


def _layer(tensor: Tensor) -> int:
    """Return the block of a tensor, -1 outside."""
    found = _BLOCK.match(tensor.name)
    return int(found[1]) if found else -1


def _shortened(entry: KeyValue, n_all: int, n_layers: int) -> KeyValue:
    """Return a metadata entry for the first layers only: their number, and lists that have one figure for each."""
    if entry.key.endswith(".block_count"):
        return replace(entry, value=n_layers)
    is_by_layer = entry.type == GGUFValueType.ARRAY and len(entry.value) == n_all and not entry.key.startswith("tokenizer.")
    return replace(entry, value=entry.value[:n_layers]) if is_by_layer else entry


def _tensors(shape: TrialShape) -> list[Tensor]:
    width, hidden = shape.width, shape.feed_forward_width
    found = [Tensor("token_embd.weight", (shape.n_vocabulary, width), _STORED), Tensor("output.weight", (shape.n_vocabulary, width), _STORED)]
    found.append(Tensor("output_norm.weight", (width,), _STORED))
    for layer in range(shape.n_layers):
        sizes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, width))
        sizes |= {"ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden)}
        found += [Tensor(f"blk.{layer}.{name}.weight", size, _STORED) for name, size in sizes.items()]
        found += [Tensor(f"blk.{layer}.{name}.weight", (width,), _STORED) for name in ("attn_norm", "ffn_norm")]
    return found


def _metadata(shape: TrialShape) -> list[KeyValue]:
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(_N_BYTES))]
    words += [f"w{i}" for i in range(shape.n_vocabulary - len(words))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * _N_BYTES]
    kinds += [_WORD] * (shape.n_vocabulary - len(kinds))
    numbers = {
        "block_count": shape.n_layers,
        "context_length": _CONTEXT,
        "embedding_length": shape.width,
        "vocab_size": shape.n_vocabulary,
        "feed_forward_length": shape.feed_forward_width,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_heads,
    }
    entries = [_one("general.architecture", _LLAMA, GGUFValueType.STRING), _one("tokenizer.ggml.model", "llama", GGUFValueType.STRING)]
    entries += [_one(f"llama.{key}", value, GGUFValueType.UINT32) for key, value in numbers.items()]
    entries.append(_one("llama.attention.layer_norm_rms_epsilon", 1e-5, GGUFValueType.FLOAT32))
    entries.append(KeyValue("tokenizer.ggml.tokens", words, GGUFValueType.ARRAY, GGUFValueType.STRING))
    entries.append(KeyValue("tokenizer.ggml.scores", [-float(i) for i in range(len(words))], GGUFValueType.ARRAY, GGUFValueType.FLOAT32))
    entries.append(KeyValue("tokenizer.ggml.token_type", kinds, GGUFValueType.ARRAY, GGUFValueType.INT32))
    ids = {"bos": 1, "eos": 2, "unknown": 0}
    return entries + [_one(f"tokenizer.ggml.{name}_token_id", i, GGUFValueType.UINT32) for name, i in ids.items()]


def _one(key: str, value: object, kind: GGUFValueType) -> KeyValue:
    return KeyValue(key, value, kind, kind)
