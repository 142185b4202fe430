"""View of a model: the tensors that an engine holds, their names, and the parameters that they are made of.

llama.cpp sees the tensors of a GGUF file (`gguf/gguf_view.py`), every other engine the parameters of the transformers module under the module's own
names (`module_view.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from bitwright.compress.models.headers import Outline
from bitwright.compress.models.opening import Checkpoint
from bitwright.compress.models.source import Source
from bitwright.compress.models.tensor_layout import ParameterSlice


class View(ABC):
    """How an engine sees a model that was opened."""

    @abstractmethod
    def source(self, checkpoint: Checkpoint) -> Source:
        """Return the tensors of a model without a torch module; weights are read from the files on demand.

        Raises:
            ModelError: this view has no tensors for the model, or it cannot be read.
        """

    @abstractmethod
    def headers(self, checkpoint: Checkpoint) -> Outline:
        """Return the headers of a model, without its weights.

        Raises:
            ModelError: see `source`.
        """

    @abstractmethod
    def pieces(self, checkpoint: Checkpoint) -> Mapping[str, tuple[ParameterSlice, ...]]:
        """Map every matrix of `source` to its slices of the parameters of the checkpoint's module.

        Raises:
            ModelError: see `source`.
        """
