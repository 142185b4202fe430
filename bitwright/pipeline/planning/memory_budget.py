"""Budget that a memory limit leaves for the file at a context and number of sequences, by the engine's memory model."""

import tempfile
from fractions import Fraction
from pathlib import Path

from bitwright.compress import Source, open_headers, open_source
from bitwright.engines import DEFAULT_ENGINE, Anatomy, MemoryUse, Serving, engine_named, memory_model_named
from bitwright.errors import BudgetError, UserError
from bitwright.pipeline.finishing.building import target_of
from bitwright.spaces import DEFAULT_CACHE, AnyCacheTypes, Budget, cache_types, read_plan

_PLAN = ".json"


def serving_of_model(name: str, context: int, parallel: int, types: str) -> Serving:
    """Return the serving settings of a model or a plan, with the KV cache types `types`, or if that is empty those of the plan.

    Raises:
        UserError: there is no such plan, or the types are unknown or `any`.
    """
    if not types:
        found = read_plan(Path(name)).cache.types if name.endswith(_PLAN) else DEFAULT_CACHE
        return Serving(context, parallel, found.keys, found.values)
    named = cache_types(types)
    if isinstance(named, AnyCacheTypes):
        raise UserError(f"Memory is computed for given KV cache types; '{types}' leaves them open: name them, or give a plan.")
    return Serving(context, parallel, named.keys, named.values)


def memory_of(name: str, serving: Serving, *, target: str = DEFAULT_ENGINE) -> MemoryUse:
    """Return the memory that a model, or the file of a plan (`name` ends in .json), uses in the engine.

    Raises:
        UserError: the model or plan cannot be read, or there is no memory model for the engine.
    """
    if name.endswith(_PLAN):
        plan = read_plan(Path(name))
        memory, engine = memory_model_named(target_of(plan).name), engine_named(plan.target)
        source: Source = open_headers(plan.model.source, engine.view).least
        if plan.structure is not None:
            source = engine.narrowed(engine.held(source), plan.structure.kept)
        return memory.anatomy(source).use(serving, file_bytes=plan.size_bytes)
    memory, source = memory_model_named(target), open_source(name, engine_named(target).view)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        file_bytes = engine_named(target).container(name).fixed_bytes(source, (), Path(scratch))
    return memory.anatomy(source).use(serving, file_bytes=file_bytes)


def serve_command(target: str, model: str, serving: Serving) -> str:
    """Return the command line that serves `model` in the engine of `target` with these settings; empty if there is none."""
    return engine_named(target).serve_command(model, serving)


def memory_bytes(memory: Budget) -> int:
    """Return a memory limit in bytes.

    Raises:
        BudgetError: it is not a number of bytes.
    """
    if memory.unit == "bpw":
        raise BudgetError(f"A memory is a number of bytes (4GiB, 900MB); '{memory.text}' is not: write it like one of these.")
    return memory.size_bytes(0)


def memory_budget(model: str, memory: Budget, serving: Serving, *, target: str = DEFAULT_ENGINE) -> Budget:
    """Return the file size that a memory limit leaves for a model with these serving settings.

    Raises:
        BudgetError: the memory is not a number of bytes, or cache, buffers and engine leave nothing of it.
        UserError: the model cannot be read, or there is no memory model for the engine.
    """
    memory_bytes(memory)  # raises before the model is opened
    counted = memory_model_named(target)
    return budget_left(counted.anatomy(open_headers(model, engine_named(target).view).least), memory, serving)


def group_cache_bytes(found: Anatomy, serving: Serving) -> tuple[int, int]:
    """Return the bytes of the cache of one group of heads of a block, and how many groups the model has in all blocks.

    Raises:
        UserError: the context or the types of the cache are not this model's.
    """
    use, n_groups = found.use(serving, file_bytes=found.header_bytes), sum(found.shape.key_widths) // found.shape.key_head
    return (use.keys_bytes + use.values_bytes) // n_groups, n_groups


def budget_left(found: Anatomy, memory: Budget, serving: Serving) -> Budget:
    """Return the file size that a memory limit leaves for a model with these dimensions.

    Raises:
        BudgetError: see `memory_budget`.
        UserError: the context is longer than the model's, or its heads do not allow the cache types.
    """
    left = found.file_bytes(serving, memory_bytes=memory_bytes(memory))
    if left <= found.header_bytes:
        rest = found.use(serving, file_bytes=found.header_bytes).total_bytes
        raise BudgetError(
            f"A memory must hold more than cache, buffers and engine; {memory.text} does not hold their {rest / 2**20:,.1f} MiB: give more memory, "
            "a shorter context, fewer sequences or a coarser cache."
        )
    return Budget(f"{memory.text} of memory at {serving.context} × {serving.parallel} tokens", Fraction(left), "b")
