"""View of a model: the tensors that an engine holds, their names, and the parameters that they are made of.

llama.cpp sees the tensors of a GGUF file (`gguf/gguf_view.py`), every other engine the parameters of the transformers module under the module's own
names (`modules/module_view.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from bitwright.compress.models.headers import Headers, Outline
from bitwright.compress.models.joined_name import split_name
from bitwright.compress.models.opening import Checkpoint
from bitwright.compress.models.source import Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.errors import UserError
from bitwright.progress import Progress


@dataclass(frozen=True)
class Bound:
    """Matrices of a source bound to slices of a module's parameters: `pieces` by name, and `notes`, sentences about those that are not."""

    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    notes: tuple[str, ...] = ()


class View(ABC):
    """View of an opened model: its tensors as an engine sees them."""

    def prepare(self, name: str, progress: Progress) -> None:  # noqa: ARG002
        """Make what takes time before the model called `name` can be opened, and report it: nothing in most views, which read no GGUF file beside a
        folder.

        Raises:
            UserError: it cannot be made, or the name has a way to a GGUF file, which this view does not read.
        """
        folder, way = split_name(name)
        if way:
            raise UserError(f"A GGUF file of a folder, or a converter to one, is for llama.cpp alone; {way} is given with {folder}: leave it out.")

    def require_streamable(self, checkpoint: Checkpoint) -> None:  # noqa: B027  # most views bind a module without its weights
        """Require that `bound` works without the weights of the module.

        Raises:
            ModelError: it does not.
        """

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
    def bound(self, checkpoint: Checkpoint, module: PreTrainedModel) -> Bound:
        """Bind the matrices of `source` to the parameters of `module`, the checkpoint's in float32, which gets weights as the source has them.

        Raises:
            ModelError: see `source`.
        """


def outline_of(
    checkpoint: Checkpoint, bounds: tuple[Headers, Headers], pieces: Mapping[str, tuple[ParameterSlice, ...]], *, window: int = 0
) -> Outline:
    """Return the outline of a checkpoint: the smallest and largest headers (`bounds`), the `pieces` of its matrices, and the `window` ignored."""
    embedding = checkpoint.skeleton.get_input_embeddings()
    return Outline(*bounds, window, checkpoint.tokenizer, pieces, embedding.get_parameter("weight").shape[0])
