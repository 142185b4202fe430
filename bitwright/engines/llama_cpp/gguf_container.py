"""The GGUF file as a container: what llama.cpp loads."""

from collections.abc import Callable, Iterable
from pathlib import Path

from bitwright.compress import Bytes, GgufSource, Source
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.llama_cpp.gguf_writer import fixed_bytes, write_tensors
from bitwright.spaces import Tensor
from bitwright.written_files import publishing


class GgufContainer(Container):
    """One file, whatever the source."""

    def fixed_bytes(self, source: Source, decided: Iterable[str], scratch: Path) -> int:
        """See `Container.fixed_bytes`."""
        return fixed_bytes(source, decided, scratch)

    def write(self, path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> None:
        """See `Container.write`."""
        with publishing(path, MODEL) as part:
            write_tensors(part, recipe, packed)

    def size_bytes(self, path: Path) -> int:
        """See `Container.size_bytes`."""
        return path.stat().st_size

    def written(self, path: Path) -> Source:
        """See `Container.written`."""
        return GgufSource(path)
