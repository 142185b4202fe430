"""Latent attention as llama.cpp holds it: the matrix that makes keys and values of the narrow vector, cut into heads.

DeepSeek keeps one narrow vector for the keys and values of a token, and `kv_b` makes the keys and values of all heads from it (DeepSeek-V2, Liu et
al., 2024, arXiv 2405.04434, section 2.1). llama.cpp never makes them: it multiplies each query by its head's half for keys, and what attention gives
by its half for values. So its file has, for `blk.0.attn_kv_b.weight` `(n_heads · (key + value), rank)`,

    blk.0.attn_k_b.weight   (n_heads, rank, key)     transposed
    blk.0.attn_v_b.weight   (n_heads, value, rank)

They are stored as floats as the source has them. Nothing is decided about them there: a row of the first is no row of the matrix that torch works
with. Other containers hold `kv_b` whole, and it is a matrix like any other.
"""

from dataclasses import dataclass

import numpy as np
import torch

from bitwright.compress.models.float_types import in_type
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.spaces import Tensor

_WHOLE, _KEYS, _VALUES = ".attn_kv_b.weight", ".attn_k_b.weight", ".attn_v_b.weight"


@dataclass(frozen=True)
class _Half:
    """A tensor of the engine made of `whole`: rows `start:stop` of each head, of `head` rows."""

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
    """Another source with its `kv_b` matrices cut into heads; everything else, the fingerprint included, is that source's."""

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
            value = int(said[f"{prefix}attention.value_length_mla"])
            key = int(said[f"{prefix}attention.key_length_mla"]) - int(said[f"{prefix}rope.dimension_count"])
            for name, half in (
                (_KEYS, _Half(tensor, key + value, 0, key, transposed=True)),
                (_VALUES, _Half(tensor, key + value, key, key + value, transposed=False)),
            ):
                tensors.append(Tensor(tensor.name.replace(_WHOLE, name), half.shape, tensor.stored))
                self._halves[tensors[-1].name] = half
        self.tensors = tuple(tensors)

    def read(self, tensor: Tensor) -> Floats:
        """See `Source.read`."""
        if tensor.name not in self._halves:
            return self._whole.read(tensor)
        half = self._halves[tensor.name]
        rows = self._whole.read(half.whole).reshape(-1, half.head, half.whole.shape[1])[:, half.start : half.stop]
        weights: Floats = np.ascontiguousarray(rows.swapaxes(1, 2) if half.transposed else rows).reshape(-1, tensor.shape[-1])
        return weights

    def stored(self, tensor: Tensor) -> Bytes:
        """See `Source.stored`."""
        if tensor.name not in self._halves:
            return self._whole.stored(tensor)
        return in_type(tensor.stored, torch.from_numpy(self.read(tensor)))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """See `Source.part`."""
        return super().part(tensor, expert) if tensor.name in self._halves else self._whole.part(tensor, expert)

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """See `Source.stored_part`."""
        return super().stored_part(tensor, expert) if tensor.name in self._halves else self._whole.stored_part(tensor, expert)


def is_latent(source: Source) -> bool:
    """Whether the source has latent attention that llama.cpp's file holds by head."""
    return any(tensor.name.endswith(_WHOLE) for tensor in source.tensors)
