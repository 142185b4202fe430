"""Multi-head latent attention as llama.cpp stores it: `kv_b`, the up-projection of the latent vector, split by head.

DeepSeek caches one latent vector for the keys and values of a token, and `kv_b` projects it to the keys and values of all heads (DeepSeek-V2, Liu et
al., 2024, arXiv 2405.04434, section 2.1). llama.cpp never computes them: it multiplies each query by the head's key half, and the attention output by
the value half. So its file has, for `blk.0.attn_kv_b.weight` `(n_heads · (key + value), rank)`,

    blk.0.attn_k_b.weight   (n_heads, rank, key)     transposed
    blk.0.attn_v_b.weight   (n_heads, value, rank)

They are stored as floats, as in the source, and are never quantized: a row of the first is not a row of torch's matrix. Other containers store `kv_b`
whole, as a matrix like any other.
"""

from dataclasses import dataclass

import numpy as np
import torch

from bitwright.compress.models.float_types import float_bytes
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.spaces import Tensor

_WHOLE, _KEYS, _VALUES = ".attn_kv_b.weight", ".attn_k_b.weight", ".attn_v_b.weight"
_BY_HEAD = ".attention.value_length_mla"


@dataclass(frozen=True)
class _Half:
    """Engine tensor cut from `whole`: rows `start:stop` of each head of `head` rows."""

    whole: Tensor
    head: int
    start: int
    stop: int
    transposed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        n_heads, n_rows, rank = self.whole.shape[0] // self.head, self.stop - self.start, self.whole.shape[1]
        return (n_heads, rank, n_rows) if self.transposed else (n_heads, n_rows, rank)


class LatentByHead(Source):
    """Source `whole` with its `kv_b` matrices split by head; everything else, the fingerprint included, is that of `whole`."""

    def __init__(self, whole: Source) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings = whole.fingerprint, whole.settings
        said = {entry.key: entry.value for entry in whole.metadata}
        prefix = f"{whole.architecture}."
        self._whole, self._halves = whole, dict[str, _Half]()
        tensors: list[Tensor] = []
        for tensor in whole.tensors:
            if not tensor.name.endswith(_WHOLE):
                tensors.append(tensor)
                continue
            value = int(said[f"{whole.architecture}{_BY_HEAD}"])
            key = int(said[f"{prefix}attention.key_length_mla"]) - int(said[f"{prefix}rope.dimension_count"])
            for name, half in (
                (_KEYS, _Half(tensor, key + value, 0, key, transposed=True)),
                (_VALUES, _Half(tensor, key + value, key, key + value, transposed=False)),
            ):
                tensors.append(Tensor(tensor.name.replace(_WHOLE, name), half.shape, tensor.stored))
                self._halves[tensors[-1].name] = half
        self.tensors = tuple(tensors)

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor, or one half of the keys and values by head, as float32 `(n_rows, n_columns)`."""
        if tensor.name not in self._halves:
            return self._whole.read(tensor)
        half = self._halves[tensor.name]
        rows = self._whole.read(half.whole).reshape(-1, half.head, half.whole.shape[1])[:, half.start : half.stop]
        weights: Floats = np.ascontiguousarray(rows.swapaxes(1, 2) if half.transposed else rows).reshape(-1, tensor.shape[-1])
        return weights

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` of a tensor; those of a half are made of its weights."""
        if tensor.name not in self._halves:
            return self._whole.stored(tensor)
        return float_bytes(tensor.stored, torch.from_numpy(self.read(tensor)))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Read one expert of a stack, or one head of a half, as float32 `(n_rows, n_columns)`."""
        return super().part(tensor, expert) if tensor.name in self._halves else self._whole.part(tensor, expert)

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """Return the stored bytes of one expert of a stack, or of one head of a half."""
        return super().stored_part(tensor, expert) if tensor.name in self._halves else self._whole.stored_part(tensor, expert)


def is_latent(source: Source) -> bool:
    """Return whether the source has latent attention that llama.cpp's file stores by head; MiniCPM3's has `kv_b` whole, and no lengths by head."""
    by_head = any(entry.key.endswith(_BY_HEAD) for entry in source.metadata)
    return by_head and any(tensor.name.endswith(_WHOLE) for tensor in source.tensors)
