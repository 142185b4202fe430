"""The dimensions of a model that decide what a run of it occupies besides its weights, read from GGUF metadata.

Keys are those of the `gguf` package. A window is counted only where the engine keeps a cache of windows, by what its log says of files made up for
each architecture: its `llama` and `qwen2` pass over the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.compress.models.architectures import ARCHITECTURES
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError

_NEEDED = ("block_count", "embedding_length", "attention.head_count", "context_length")
# architecture → (window, a full layer after so many) where a file says nothing
_WINDOWS = {"gemma2": (4096, 2), "gemma3": (0, 6)}
_LATENT = "attention.value_length_mla"  # where it is said, values are a part of the cached keys


@dataclass(frozen=True)
class Dimensions:
    """A model's shape as the engine sees it.

    `key_widths` and `value_widths` are the numbers of a layer's cached vectors, heads times their size, `(n_layers,)`; `windowed` `(n_layers,)` says
    which layers attend to the last `window` tokens only. `query_width` is that of all query heads together. `feed_forward_width` is one expert's
    where there are experts, of which a token uses `n_used`, and `shared_width` that of the experts that every token uses; it is the whole network's,
    and `n_used` is 1, where there are none.
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
    """The dimensions of a model.

    Raises:
        ModelError: its metadata lacks one of them.
    """
    prefix = f"{source.architecture}."
    said: dict[str, Any] = {entry.key.removeprefix(prefix): entry.value for entry in source.metadata}
    missing = [key for key in _NEEDED if key not in said]
    if missing:
        raise ModelError(
            f"A model must say its dimensions for its memory to be counted; {source.name} does not say {prefix}{missing[0]}: convert it again."
        )
    n_layers, width = int(said["block_count"]), int(said["embedding_length"])
    heads = _by_layer(said["attention.head_count"], n_layers)
    cached = _by_layer(said.get("attention.head_count_kv", said["attention.head_count"]), n_layers)
    head = width // max(heads)
    key, value = int(said.get("attention.key_length", head)), int(said.get("attention.value_length", head))
    window, windowed = _windows(source.architecture, said, n_layers)
    sparse = int(said.get("expert_count", 0)) > 0
    feed_forward = max(_by_layer(said.get("feed_forward_length", 0), n_layers))
    return Dimensions(
        embedding_width=width,
        feed_forward_width=int(said.get("expert_feed_forward_length", feed_forward)) if sparse else feed_forward,
        shared_width=int(said.get("expert_shared_feed_forward_length", 0)) if sparse else 0,
        n_used=int(said.get("expert_used_count", 1)) if sparse else 1,
        query_width=max(heads) * key,
        key_head=key,
        value_head=value,
        key_widths=tuple(n * key for n in cached),
        value_widths=(0,) * n_layers if _LATENT in said else tuple(n * value for n in cached),
        windowed=windowed,
        window=window,
        n_vocabulary=next((t.shape[0] for t in source.tensors if t.name == "token_embd.weight"), len(said.get("tokenizer.ggml.tokens", ()))),
        n_merges=len(said.get("tokenizer.ggml.merges", ())),
        context_length=int(said["context_length"]),
    )


def _by_layer(value: Any, n_layers: int) -> tuple[int, ...]:
    """A figure that is one for all layers, or a list of one for each."""
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),) * n_layers


def _windows(architecture: str, said: Mapping[str, Any], n_layers: int) -> tuple[int, tuple[bool, ...]]:
    """The window in tokens, and which layers have it `(n_layers,)`."""
    row = ARCHITECTURES.get(architecture)
    if row is None or not row.sliding:
        return 0, (False,) * n_layers
    window, period = _WINDOWS[architecture]
    window = int(said.get("attention.sliding_window", window))
    pattern = said.get("attention.sliding_window_pattern", period)
    if isinstance(pattern, (list, tuple)):
        return window, tuple(bool(sliding) and window > 0 for sliding in pattern)
    return window, tuple(window > 0 and layer % int(pattern) < int(pattern) - 1 for layer in range(n_layers))
