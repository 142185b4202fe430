"""Exact bytes of a model of which only a structure is kept: of its file, and of what a limit counts, the cache of keys and values among it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bitwright.compress import Source, dimensions
from bitwright.engines import Engine, Serving, memory_model_named
from bitwright.pipeline.planning.memory_budget import group_cache_bytes, memory_bytes
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Memory
from bitwright.spaces import CacheTypes, Structure


def structured_bytes(engine: Engine, source: Source, structure: Structure, formats: Mapping[str, str], scratch: Path) -> int:
    """Return the bytes of the file of a structure of `source`, whose tensors have the `formats` (tensor of the whole model → format).

    The header is written to the folder `scratch`, and removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    kept = engine.narrowed(source, structure)
    named = kept.renamed(formats)
    fixed = engine.container(source.name).keeping(structure).fixed_bytes(kept, named, scratch)
    shapes = {tensor.name: tensor.shape for tensor in kept.tensors}
    return fixed + sum(engine.target.stored_bytes(shapes[name], engine.target.format(form)) for name, form in named.items())


@dataclass(frozen=True, eq=False)
class CountedBytes:
    """Bytes that count against a `limit`: those of the file, or of a run in memory. `budget_bytes` are those of the file, where that is limited."""

    engine: Engine
    source: Source
    limit: BudgetOrMemory
    budget_bytes: int
    scratch: Path

    @cached_property
    def allowed(self) -> int:
        """Bytes that the limit allows."""
        return memory_bytes(self.limit.size) if isinstance(self.limit, Memory) else self.budget_bytes

    def file(self, structure: Structure, formats: Mapping[str, str]) -> int:
        """Return the bytes of the file of a structure with these formats (tensor of the whole model → format)."""
        return structured_bytes(self.engine, self.source, structure, formats, self.scratch)

    def of(self, structure: Structure, formats: Mapping[str, str], types: CacheTypes) -> int:
        """Return the bytes that count, with keys and values in these types."""
        size = self.file(structure, formats)
        return self._in_memory(structure, size, self.limit.serving(types)) if isinstance(self.limit, Memory) else size

    def cache_bits_of_a_group(self, types: CacheTypes) -> int:
        """Return the bits of the cache of one group of heads in one block, 0 where a file is limited."""
        if not isinstance(self.limit, Memory):
            return 0
        anatomy = memory_model_named(self.engine.name).anatomy(self.source)
        return 8 * group_cache_bytes(anatomy, self.limit.serving(types))[0]

    def _in_memory(self, structure: Structure, file_bytes: int, serving: Serving) -> int:
        memory, shape = memory_model_named(self.engine.name), dimensions(self.source)
        groups = [n for i, n in enumerate(structure.head_groups) if i not in structure.gone]
        kept = replace(
            shape,
            key_widths=tuple(n * shape.key_head for n in groups),
            value_widths=tuple(n * shape.value_head for n in groups),
            windowed=(False,) * len(groups),
        )
        header = memory.header_bytes(self.engine.narrowed(self.source, structure), self.scratch)
        return memory.use(kept, serving, weights_bytes=file_bytes - header).total_bytes
