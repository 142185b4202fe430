"""GGUF files as a container, for llama.cpp."""

from collections.abc import Callable, Iterable
from pathlib import Path

from bitwright.compress import Bytes, GgufSource, Source, named_parts
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.llama_cpp.gguf_writer import fixed_bytes, write_tensors
from bitwright.spaces import Tensor
from bitwright.written_files import publishing


class GgufContainer(Container):
    """Container of one GGUF file."""

    def fixed_bytes(self, source: Source, decided: Iterable[str], scratch: Path) -> int:
        """Count the bytes of the metadata and of every tensor whose name is not in `decided`, with all padding."""
        return fixed_bytes(source, decided, scratch)

    def write(self, path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> Path:
        """Write the GGUF file under a temporary name, read it back, and rename it."""
        with publishing(path, MODEL) as part:
            write_tensors(part, recipe, packed)
        return path

    def files(self, path: Path) -> list[Path]:
        """Return the file, or the parts of a split one."""
        return named_parts(path)

    def size_bytes(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        return path.stat().st_size

    def written(self, path: Path) -> Source:
        """Open the GGUF file at `path`."""
        return GgufSource(path)
