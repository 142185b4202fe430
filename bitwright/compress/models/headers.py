"""A model as its files describe it before a weight is read: shapes, stored formats, metadata.

The format of a folder's matrices is the narrowest float type that loses nothing of their weights, which only the weights tell. So what a file would
have is known to lie between two sizes, `Outline.least` and `Outline.most`: equal wherever the folder's tensors have 16 bits or fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.spaces import Tensor


class Headers(Source):
    """Tensors without weights; asking for one is a mistake of whoever asks."""

    fingerprint = ""

    def __init__(
        self,
        name: str,
        architecture: str,
        metadata: tuple[KeyValue, ...],
        tensors: tuple[Tensor, ...],
        *,
        sizes: Mapping[str, int] = {},  # never changed
        vectors: str = "BF16",
    ) -> None:
        """`sizes` are the bytes of tensors where a shape and a format do not tell, and `vectors` the type that a checkpoint may keep vectors in."""
        self.name, self.architecture, self.metadata, self.tensors = name, architecture, metadata, tensors
        self.vectors, self._sizes = vectors, dict(sizes)

    def read(self, tensor: Tensor) -> Floats:
        """See `Source.read`.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the weights of {tensor.name} are not read before everything else is known")

    def stored(self, tensor: Tensor) -> Bytes:
        """See `Source.stored`.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the bytes of {tensor.name} are not read before everything else is known")

    def stored_bytes(self, tensor: Tensor) -> int:
        """See `Source.stored_bytes`."""
        return self._sizes[tensor.name] if tensor.name in self._sizes else super().stored_bytes(tensor)


@dataclass(frozen=True)
class Outline:
    """A model of which the smallest and the largest file are known that its weights may turn out to make of it as it is stored.

    `window_ignored` is the sliding window that llama.cpp does not compute, see `architectures.window_ignored`; 0 where there is none.
    """

    least: Headers
    most: Headers
    window_ignored: int


def context_length(source: Source) -> int:
    """Tokens of the longest text that a model was made for, 0 where it does not say."""
    return next((int(entry.value) for entry in source.metadata if entry.key == f"{source.architecture}.context_length"), 0)
