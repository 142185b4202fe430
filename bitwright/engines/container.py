"""Containers: the ways to write a model to disk, and the interface that the pipeline uses for all of them.

There is one subclass for each: a GGUF file, a folder of compressed-tensors, and whatever follows. The pipeline plans, builds and checks through this
class alone, so that a target is a value (`spaces/target.py`) and a container, and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bitwright.compress import Bytes, Floats, Source, float_bytes
from bitwright.spaces import Structure, Tensor

#: what is written here, as the record of a folder calls it
MODEL = "model"


@dataclass(frozen=True)
class Recipe:
    """Tensors to write: a source and, for the tensors in `formats`, the name of the format each is written in.

    `changed` are the weights `(n_rows, n_columns)` of tensors that are stored as floats and not in `formats`, where they are not those of the source.
    """

    source: Source
    formats: Mapping[str, str]
    changed: Mapping[str, Floats] = field(default_factory=dict)

    def format_of(self, tensor: Tensor) -> str:
        """Return the format in which the tensor is written."""
        return self.formats.get(tensor.name, tensor.stored)

    def kept(self, tensor: Tensor) -> Bytes:
        """Return the bytes of a tensor that is not in `formats`."""
        if tensor.name not in self.changed:
            return self.source.stored(tensor)
        return float_bytes(tensor.stored, torch.from_numpy(self.changed[tensor.name]))


class Container(ABC):
    """Way to write a model. Its size is that of everything written, exactly: `fixed_bytes` plus the size of every chosen pair."""

    @abstractmethod
    def fixed_bytes(self, source: Source, decided: Iterable[str], scratch: Path) -> int:
        """Bytes that no choice changes: metadata, tokenizer, and every tensor whose name is not in `decided`, with all padding.

        What cannot be counted without writing it is written to the folder `scratch` and removed.

        Raises:
            OutputError: the folder cannot be written.
        """

    @abstractmethod
    def write(self, path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> Path:
        """Write the model under a temporary name beside `path`, read it back, and rename it; return the path to load it by.

        `packed` gives the bytes of a tensor of `recipe.formats` in its format; every other tensor is `recipe.kept`.

        Raises:
            OutputError: the place cannot be written, the disk is full, or what is there is not Bitwright's own; nothing is left behind.
            BrokenPromiseError: what was read back is not what was to be written.
        """

    def keeping(self, structure: Structure) -> "Container":  # noqa: ARG002
        """Return how the model is written of which only a structure is kept: as it is whole, where all that differs is in its source."""
        return self

    def files(self, path: Path) -> list[Path]:
        """Return the files or folders, each with a record of its own, of the model that is loaded by `path`."""
        return [path]

    @abstractmethod
    def size_bytes(self, path: Path) -> int:
        """Return the bytes on disk of the model at `path`."""

    @abstractmethod
    def written(self, path: Path) -> Source:
        """Open the model at `path`: its tensors by their names in the recipe, with their formats and the weights computed with.

        Raises:
            ModelError: it cannot be read, or is not whole.
        """
