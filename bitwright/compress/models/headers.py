"""Headers of a model: shapes, stored formats and metadata, without weights.

The stored format of a folder's matrices is the narrowest lossless float type, which depends on the weights. Headers alone bound the size of a file,
from `Outline.least` to `Outline.most`; the two are equal if all tensors of the folder have 16 bits or fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor


class Headers(Source):
    """Tensors without weights; reading one raises ValueError."""

    fingerprint = ""

    def __init__(
        self,
        name: str,
        architecture: str,
        metadata: tuple[KeyValue, ...],
        tensors: tuple[Tensor, ...],
        *,
        sizes: Mapping[str, int] = {},  # not mutated
        vectors: str = "BF16",
    ) -> None:
        """Take the sizes in bytes of the tensors whose format does not determine them, and the float type `vectors` of a checkpoint's vectors."""
        self.name, self.architecture, self.metadata, self.tensors = name, architecture, metadata, tensors
        self.vectors, self._sizes = vectors, dict(sizes)

    def read(self, tensor: Tensor) -> Floats:
        """Refuse to read weights.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"headers hold no weights: {tensor.name} cannot be read")

    def stored(self, tensor: Tensor) -> Bytes:
        """Refuse to read bytes.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"headers hold no weights: the bytes of {tensor.name} cannot be read")

    def stored_bytes(self, tensor: Tensor) -> int:
        """Return the bytes of a tensor by the file's header, or by its shape."""
        return self._sizes[tensor.name] if tensor.name in self._sizes else super().stored_bytes(tensor)


@dataclass(frozen=True)
class Outline:
    """Smallest and largest headers that a model may turn out to have, before its weights are read.

    `window_ignored` is the sliding window that llama.cpp does not compute, see `architectures.window_ignored`; 0 where there is none. `tokenizer` and
    `pieces`, the parameter slices of each matrix, are those of the loaded model, and `n_embedding_rows` is the upper bound of its token ids.
    """

    least: Headers
    most: Headers
    window_ignored: int
    tokenizer: PreTrainedTokenizerBase
    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    n_embedding_rows: int


def context_length(source: Source) -> int:
    """Return the context length of a model in tokens, 0 if its metadata has none."""
    return next((int(entry.value) for entry in source.metadata if entry.key == f"{source.architecture}.context_length"), 0)
