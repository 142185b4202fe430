"""From a memory, a context and a number of sequences to the budget that is left for a file, and where every byte of a run goes."""

import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from bitwright.compress import Dimensions, Source, dimensions, open_headers, open_source
from bitwright.engines import LLAMA_CPP, MemoryUse, Serving, engine, header_bytes, memory_use, require_accounting
from bitwright.errors import BudgetError, UserError
from bitwright.pipeline.building import target_of
from bitwright.spaces import CACHE_FORMATS, DEFAULT_CACHE, AnyCacheTypes, Budget, cache_format, cache_types, read_plan

_PLAN = ".json"


@dataclass(frozen=True)
class Anatomy:
    """What of a model decides what a run occupies: its dimensions, and the bytes of its file that are no weights and are not kept."""

    shape: Dimensions
    header_bytes: int

    def use(self, serving: Serving, *, file_bytes: int) -> MemoryUse:
        """What a run of a file of `file_bytes` occupies.

        Raises:
            UserError: the context or the types of the cache are not this model's.
        """
        return memory_use(self.shape, serving, weights_bytes=file_bytes - self.header_bytes)

    def file_bytes(self, serving: Serving, *, memory_bytes: int) -> int:
        """The largest file whose run stays within `memory_bytes`; negative where the rest alone is above.

        Raises:
            UserError: see `use`.
        """
        return memory_bytes - self.use(serving, file_bytes=self.header_bytes).total_bytes + self.header_bytes

    def cache_bytes(self, serving: Serving) -> dict[str, tuple[int, int]]:
        """What keys and values take in each type that divides their heads, by its name; of compute buffers what such a type adds, so that file and
        cache together are what a memory bounds. `serving` keeps both in the plain type.

        Raises:
            UserError: see `use`.
        """
        plain = self.use(serving, file_bytes=self.header_bytes)
        found = {}
        for name in CACHE_FORMATS:
            if all(cache_format(name).fits((head,)) for head in (self.shape.key_head, self.shape.value_head)):
                keys, values = (self._more(asked, plain) for asked in (replace(serving, keys=name), replace(serving, values=name)))
                found[name] = (plain.keys_bytes + keys, plain.values_bytes + values)
        return found

    def _more(self, serving: Serving, plain: MemoryUse) -> int:
        return self.use(serving, file_bytes=self.header_bytes).total_bytes - plain.total_bytes


def anatomy(source: Source) -> Anatomy:
    """The anatomy of a model.

    Raises:
        ModelError: its metadata lacks a dimension.
    """
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        return Anatomy(dimensions(source), header_bytes(source, Path(scratch)))


def serving_of_model(name: str, context: int, parallel: int, types: str) -> Serving:
    """What is asked of the engine with a model or a plan: the types of the cache that `types` names, or where it is empty those of the plan.

    Raises:
        UserError: no plan, or types that are none or are not decided yet.
    """
    if not types:
        found = read_plan(Path(name)).cache.types if name.endswith(_PLAN) else DEFAULT_CACHE
        return Serving(context, parallel, found.keys, found.values)
    named = cache_types(types)
    if isinstance(named, AnyCacheTypes):
        raise UserError(f"Memory is counted for types of the cache that are known; '{types}' is none of them: name them, or give a plan.")
    return Serving(context, parallel, named.keys, named.values)


def memory_of(name: str, serving: Serving, *, target: str = LLAMA_CPP.name) -> MemoryUse:
    """What a run of a model, or of the file that a plan describes (`name` ends in .json), occupies in the engine.

    Raises:
        UserError: the model or plan cannot be read, or the engine's memory cannot be counted.
    """
    if name.endswith(_PLAN):
        plan = read_plan(Path(name))
        require_accounting(target_of(plan))
        return anatomy(open_headers(plan.model.source).least).use(serving, file_bytes=plan.size_bytes)
    require_accounting(engine(target, ""))
    source = open_source(name)
    found = anatomy(source)
    return found.use(serving, file_bytes=found.header_bytes + _stored_bytes(source))


def memory_bytes(memory: Budget) -> int:
    """A memory in bytes.

    Raises:
        BudgetError: it is no number of bytes.
    """
    if memory.unit == "bpw":
        raise BudgetError(f"A memory is a number of bytes (4GiB, 900MB); '{memory.text}' is not: write it like one of these.")
    return memory.size_bytes(0)


def memory_budget(model: str, memory: Budget, serving: Serving, *, target: str = LLAMA_CPP.name) -> Budget:
    """The bytes of a file that a `memory` leaves for a model served so.

    Raises:
        BudgetError: the memory is no number of bytes, or the rest leaves nothing of it.
        UserError: the model cannot be read, or the engine's memory cannot be counted.
    """
    memory_bytes(memory)  # refused before the model is opened
    require_accounting(engine(target, ""))
    return budget_left(anatomy(open_headers(model).least), memory, serving)


def budget_left(found: Anatomy, memory: Budget, serving: Serving) -> Budget:
    """The same for a model of that anatomy.

    Raises:
        BudgetError: see `memory_budget`.
        UserError: the context or the types of the cache are not this model's.
    """
    left = found.file_bytes(serving, memory_bytes=memory_bytes(memory))
    if left <= found.header_bytes:
        rest = found.use(serving, file_bytes=found.header_bytes).total_bytes
        raise BudgetError(
            f"A memory must hold more than cache, buffers and engine; {memory.text} does not hold their {rest / 2**20:,.1f} MiB: give more memory, "
            "a shorter context, fewer sequences or a coarser cache."
        )
    return Budget(f"{memory.text} of memory at {serving.context} × {serving.parallel} tokens", Fraction(left), "b")


def _stored_bytes(source: Source) -> int:
    """Bytes of all tensors as they are stored, each padded as in a file."""
    sizes = (source.stored_bytes(tensor) for tensor in source.tensors)
    return sum(-(-size // LLAMA_CPP.alignment) * LLAMA_CPP.alignment for size in sizes)
