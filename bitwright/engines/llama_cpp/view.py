"""View of a model as llama.cpp sees it: the tensors and the metadata of a GGUF file.

A folder whose family our own writer knows is laid out without a file (`compress/models/gguf/gguf_view.py`). Every other one is converted by
llama.cpp's own converter, or comes with its GGUF file, and that file is bound to the folder's module by its values.
"""

from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

from transformers import PreTrainedModel

from bitwright.compress import (
    GGUF_VIEW,
    MODEL_TYPES,
    Bound,
    Checkpoint,
    FolderCheckpoint,
    GgufSource,
    Outline,
    Source,
    View,
    exact_headers,
    open_checkpoint,
    outline_of,
)
from bitwright.engines.llama_cpp.binding import bind_file, require_floats
from bitwright.engines.llama_cpp.converter import converter_named
from bitwright.engines.llama_cpp.file_settings import require_same_settings
from bitwright.errors import LibraryError, ModelError
from bitwright.progress import Progress, Silent

_GGUF = ".gguf"
_KEPT_OPEN = 4


class LlamaCppView(View):
    """View of a model as llama.cpp sees it."""

    def prepare(self, name: str, progress: Progress) -> None:
        """Convert a folder that our own writer does not lay out, and report it."""
        checkpoint = open_checkpoint(name)
        if _is_converted(checkpoint, progress):
            _path_of(checkpoint, progress)

    def require_streamable(self, checkpoint: Checkpoint) -> None:
        """Require a model that our own writer lays out: a converted file is bound to the module by its values."""
        if _is_converted(checkpoint, Silent()):
            raise ModelError(
                f"A model is streamed for llama.cpp where its tensors are known by name; those of {checkpoint.name} are known by their values: give "
                "more --search-memory, or choose another --target."
            )

    def source(self, checkpoint: Checkpoint) -> Source:
        """Return the tensors of the model in this view, read on demand."""
        return _file_of(checkpoint) if _is_converted(checkpoint, Silent()) else GGUF_VIEW.source(checkpoint)

    def headers(self, checkpoint: Checkpoint) -> Outline:
        """Return the headers of the model in this view, without weights."""
        if not _is_converted(checkpoint, Silent()):
            return GGUF_VIEW.headers(checkpoint)
        file = _file_of(checkpoint)
        require_floats(file)
        headers = exact_headers(file)
        names = [tensor.name for tensor in headers.tensors if len(tensor.shape) > 1]
        return outline_of(checkpoint, (headers, headers), dict.fromkeys(names, ()))  # a window that the file loses is found by running it

    def bound(self, checkpoint: Checkpoint, module: PreTrainedModel) -> Bound:
        """Bind the matrices of this view to the parameters of `module`."""
        if not _is_converted(checkpoint, Silent()):
            return GGUF_VIEW.bound(checkpoint, module)
        return bind_file(_file_of(checkpoint), checkpoint.path, module, checkpoint.tokenizer)


LLAMA_CPP_VIEW = LlamaCppView()


def _is_converted(checkpoint: Checkpoint, progress: Progress) -> TypeGuard[FolderCheckpoint]:
    """Return whether a model is a folder that our own writer does not lay out: a way to its GGUF file is given, or it does not know the family, the
    settings or the tokenizer.

    Raises:
        ModelError: it refuses a family that it knows, and llama.cpp's converter cannot be had here.
    """
    if not isinstance(checkpoint, FolderCheckpoint):
        return False
    if checkpoint.way or checkpoint.config.model_type not in MODEL_TYPES:
        return True
    refusal = _refusal(checkpoint)
    if refusal is None:
        return False
    try:
        converter_named("", progress)
    except LibraryError:
        raise refusal from None
    return True


@lru_cache(maxsize=_KEPT_OPEN)
def _refusal(checkpoint: FolderCheckpoint) -> ModelError | None:
    """Return why our own writer does not lay out a folder of a family that it knows, None where it does."""
    try:
        GGUF_VIEW.headers(checkpoint)
    except ModelError as error:
        return error
    return None


@lru_cache(maxsize=_KEPT_OPEN)
def _file_of(checkpoint: FolderCheckpoint) -> GgufSource:
    """Return the file of a folder. Torch computes by the folder's configuration, so its settings are the model's too."""
    file = GgufSource(_path_of(checkpoint, Silent()), checkpoint.name, checkpoint.settings)
    if checkpoint.way.endswith(_GGUF):
        require_same_settings(file, checkpoint.config)
    return file


def _path_of(checkpoint: FolderCheckpoint, progress: Progress) -> Path:
    if checkpoint.way.endswith(_GGUF):
        return Path(checkpoint.way)
    return converter_named(checkpoint.way, progress).convert(checkpoint.path, progress)
