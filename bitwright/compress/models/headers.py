"""Headers of a model: shapes, stored formats and metadata, without weights.

The stored format of a folder's matrices is the narrowest lossless float type, which depends on the weights. Headers alone bound the size of a file,
from `Outline.least` to `Outline.most`; the two are equal if all tensors of the folder have 16 bits or fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bitwright.compress.models.modules.structure import ROUTER
from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor, role_of


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
        context_length: int = -1,
        n_experts_used: int = -1,
    ) -> None:
        """Take the sizes in bytes of the tensors whose format does not determine them, and what the metadata does not say."""
        self.name, self.architecture, self.metadata, self.tensors = name, architecture, metadata, tensors
        self._sizes, self._context_length, self._n_experts_used = dict(sizes), context_length, n_experts_used

    @property
    def context_length(self) -> int:
        """Context length that the model was made for, in tokens; 0 where it is not known."""
        return self._said("context_length", 0) if self._context_length < 0 else self._context_length

    @property
    def n_experts_used(self) -> int:
        """Number of routed experts that a token uses."""
        return self._said("expert_used_count", 1) if self._n_experts_used < 0 else self._n_experts_used

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


def exact_headers(file: Source) -> Headers:
    """Return the headers of a file, whose tensors are stored as they stand there."""
    sizes = {tensor.name: file.stored_bytes(tensor) for tensor in file.tensors}
    return Headers(file.name, file.architecture, file.metadata, file.tensors, sizes=sizes)


@dataclass(frozen=True)
class Outline:
    """Smallest and largest headers that a model may turn out to have, before its weights are read.

    `window_ignored` is the sliding window that llama.cpp does not compute, see `architectures.window_ignored`; 0 where there is none. `tokenizer` and
    `pieces`, the parameter slices of each matrix, are those of the loaded model, without slices where only weights tell them. `n_embedding_rows` is
    the upper bound of its token ids.
    """

    least: Headers
    most: Headers
    window_ignored: int
    tokenizer: PreTrainedTokenizerBase
    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    n_embedding_rows: int

    @property
    def has_routers(self) -> bool:
        """True if the model is a mixture of experts whose routers are known."""
        return any(tensor.name in self.pieces and role_of(tensor) == ROUTER for tensor in self.least.tensors)
