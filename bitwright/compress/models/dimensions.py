"""Dimensions of a model that determine its memory besides the weights, read from GGUF metadata.

Keys are those of the `gguf` package. A sliding window counts only for architectures whose KV cache llama.cpp limits to the window, as its log shows
for a synthetic file of each: `llama` and `qwen2` ignore the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.compress.models.architectures import ARCHITECTURES
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError, shown

_NEEDED = ("block_count", "embedding_length", "attention.head_count", "context_length")
# architecture → defaults of (window, period of full-attention layers)
_WINDOWS = {"gemma2": (4096, 2), "gemma3": (0, 6)}
_LAYERS, _LARGEST = 2**16, 2**40  # far beyond any model, and small enough that byte counts stay exact
_LATENT = "attention.value_length_mla"  # if present, values are a part of the cached keys


@dataclass(frozen=True)
class Dimensions:
    """Dimensions of a model as the engine sees them.

    `key_widths` and `value_widths` `(n_layers,)` are the number of heads times the head dimension of a layer's cached keys and values; `windowed`
    `(n_layers,)` marks the layers with a sliding window of `window` tokens. `query_width` is that of all query heads together. In a mixture of
    experts `feed_forward_width` is one expert's, `n_used` the number of experts per token, and `shared_width` the width of the shared experts; in a
    dense model `feed_forward_width` is the whole network's and `n_used` is 1.
    """

    embedding_width: int
    feed_forward_width: int
    shared_width: int
    n_used: int
    query_width: int
    key_head: int
    value_head: int
    key_widths: tuple[int, ...]
    value_widths: tuple[int, ...]
    windowed: tuple[bool, ...]
    window: int
    n_vocabulary: int
    n_merges: int
    context_length: int

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.key_widths)


def dimensions(source: Source) -> Dimensions:
    """Return the dimensions of a model.

    Raises:
        ModelError: the metadata lacks one of them, or has an impossible value.
    """
    prefix = f"{source.architecture}."
    metadata = _Metadata(source.name, {entry.key.removeprefix(prefix): entry.value for entry in source.metadata})
    missing = [key for key in _NEEDED if key not in metadata.values]
    if missing:
        raise ModelError(
            f"A model's metadata must hold its dimensions for its memory to be estimated; {source.name} lacks {prefix}{missing[0]}: convert it again."
        )
    n_layers, width = metadata.count("block_count", at_least=1, at_most=_LAYERS), metadata.count("embedding_length", at_least=1)
    heads = metadata.by_layer("attention.head_count", n_layers, default=0)
    cached = metadata.by_layer("attention.head_count_kv", n_layers, default=0) if "attention.head_count_kv" in metadata.values else heads
    if not max(heads) or not max(cached):
        raise metadata.wrong("attention.head_count", "a number of heads")
    head = width // max(heads)
    key = metadata.count("attention.key_length", default=head, at_least=1)
    value = metadata.count("attention.value_length", default=head, at_least=1)
    window, windowed = _windows(source.architecture, metadata, n_layers)
    sparse = metadata.count("expert_count", default=0) > 0
    feed_forward = max(metadata.by_layer("feed_forward_length", n_layers, default=0))
    return Dimensions(
        embedding_width=width,
        feed_forward_width=metadata.count("expert_feed_forward_length", default=feed_forward) if sparse else feed_forward,
        shared_width=metadata.count("expert_shared_feed_forward_length", default=0) if sparse else 0,
        n_used=metadata.count("expert_used_count", default=1, at_least=1) if sparse else 1,
        query_width=max(heads) * key,
        key_head=key,
        value_head=value,
        key_widths=tuple(n * key for n in cached),
        value_widths=(0,) * n_layers if _LATENT in metadata.values else tuple(n * value for n in cached),
        windowed=windowed,
        window=window,
        n_vocabulary=next((t.shape[0] for t in source.tensors if t.name == "token_embd.weight"), metadata.length("tokenizer.ggml.tokens")),
        n_merges=metadata.length("tokenizer.ggml.merges"),
        context_length=metadata.count("context_length", at_least=1),
    )


@dataclass(frozen=True)
class _Metadata:
    """Metadata of the model `name`, whose values may be of any type, read with checks."""

    name: str
    values: Mapping[str, Any]

    def count(self, key: str, *, default: int = 0, at_least: int = 0, at_most: int = _LARGEST) -> int:
        """Return a whole number, or `default` if the key is missing.

        Raises:
            ModelError: the value is not a whole number, or is out of range.
        """
        value = self.values.get(key, default)
        if type(value) is not int or not at_least <= value <= at_most:
            raise self.wrong(key, f"a whole number from {at_least} to {at_most:,}")
        return value

    def by_layer(self, key: str, n_layers: int, *, default: int) -> tuple[int, ...]:
        """Return one number per layer, from a list or from a single number for all layers.

        Raises:
            ModelError: the value is neither.
        """
        value = self.values.get(key, default)
        if not isinstance(value, (list, tuple)):
            return (self.count(key, default=default),) * n_layers
        if len(value) != n_layers or not all(type(figure) in (int, bool) and 0 <= figure <= _LARGEST for figure in value):
            raise self.wrong(key, f"one whole number for each of {n_layers} layers")
        return tuple(int(figure) for figure in value)

    def length(self, key: str) -> int:
        """Return the length of a list, 0 if the key is missing.

        Raises:
            ModelError: the value is not a list.
        """
        value = self.values.get(key, ())
        if not isinstance(value, (list, tuple)):
            raise self.wrong(key, "a list")
        return len(value)

    def wrong(self, key: str, rule: str) -> ModelError:
        """Return the error for a value that breaks a rule."""
        return ModelError(f"The metadata of a model must have {rule} as {key}; {self.name} has {shown(self.values.get(key))}: convert it again.")


def _windows(architecture: str, metadata: _Metadata, n_layers: int) -> tuple[int, tuple[bool, ...]]:
    """Return the window in tokens, and which layers have it, `(n_layers,)`."""
    row = ARCHITECTURES.get(architecture)
    if row is None or not row.sliding:
        return 0, (False,) * n_layers
    window, period = _WINDOWS[architecture]
    window = metadata.count("attention.sliding_window", default=window)
    key = "attention.sliding_window_pattern"
    if isinstance(metadata.values.get(key), (list, tuple)):
        return window, tuple(sliding > 0 and window > 0 for sliding in metadata.by_layer(key, n_layers, default=0))
    period = metadata.count(key, default=period, at_least=1)
    return window, tuple(window > 0 and layer % period < period - 1 for layer in range(n_layers))
