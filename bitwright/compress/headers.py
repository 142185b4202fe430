"""A model as its files describe it before a weight is read: shapes, stored formats, metadata.

The format of a folder's matrices is the narrowest float type that loses nothing of their weights, which only the weights tell. So what a file would
have is known to lie between two sizes, `Outline.least` and `Outline.most`: equal wherever the folder's tensors have 16 bits or fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig

from bitwright.compress.architectures import recognise
from bitwright.compress.source import Bytes, Floats, KeyValue, Source
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
class Window:
    """The tokens before it that a position attends to where torch computes a model, 0 for all, and whether llama.cpp keeps to it too."""

    n_tokens: int
    is_the_engine_s: bool


@dataclass(frozen=True)
class Outline:
    """A model of which the smallest and the largest file are known that its weights may turn out to make of it as it is stored."""

    least: Headers
    most: Headers
    window: Window


def context_length(source: Source) -> int:
    """Tokens of the longest text that a model was made for, 0 where it does not say."""
    return next((int(entry.value) for entry in source.metadata if entry.key == f"{source.architecture}.context_length"), 0)


def no_window() -> Window:
    """What a GGUF file has: one whose window torch and llama.cpp see differently is refused when it is loaded."""
    return Window(0, is_the_engine_s=True)


def window_of(config: PreTrainedConfig) -> Window:
    """The window of a configuration."""
    said = config.to_dict()
    layers = said.get("layer_types")
    slides = said.get("sliding_window") and (layers is None or "sliding_attention" in layers)
    return Window(int(said["sliding_window"]) if slides else 0, recognise(config).sliding)
