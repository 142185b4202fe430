"""Engines by name: the built-in ones, and those that other packages name under the entry points of `bitwright.engines`.

What was read in an engine's source and what was really run is told apart in `docs/targets.md`.
"""

from bitwright.compress import Model, Source
from bitwright.engines import no_engine
from bitwright.engines.compressed_tensors import engine as compressed_tensors
from bitwright.engines.container import Container
from bitwright.engines.engine import Engine
from bitwright.engines.llama_cpp import engine as llama_cpp
from bitwright.engines.memory import MemoryModel
from bitwright.engines.native import engine as native
from bitwright.errors import UserError
from bitwright.plugins import Parts
from bitwright.spaces import Target

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (llama_cpp.ENGINE, *compressed_tensors.ENGINES, no_engine.ENGINE, *native.ENGINES)}
ENGINE_PARTS = Parts("The target must be a known engine", "bitwright.engines", (Engine,), ENGINES)
DEFAULT_ENGINE = llama_cpp.ENGINE.name


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines, the built-in ones first."""
    return ENGINE_PARTS.names


def engine_named(name: str) -> Engine:
    """Return the engine called `name`.

    Raises:
        UserError: there is no such engine.
        LibraryError: the package that names it does not give an engine of that name.
    """
    return ENGINE_PARTS.named(name)


def target_named(name: str) -> Target:
    """Return the target of the engine called `name`.

    Raises:
        UserError: see `engine_named`.
    """
    return engine_named(name).target


def profile_named(name: str, version: str) -> Target:
    """Return the profile of an engine; of the version it was read from, or of any when `version` is empty.

    Raises:
        UserError: there is no such engine, or no profile of that version.
    """
    if name not in engine_names():
        raise UserError(f"An engine must have a profile; '{name}' has none: choose from {', '.join(engine_names())}.")
    target = target_named(name)
    if version not in ("", target.version):
        raise UserError(
            f"An engine's rules hold for the version they were read from; {name} {version} has no profile: use {name} {target.version}, or "
            "leave the version out to go by that one's rules."
        )
    return target


def split_engine(name: str, max_bytes: int) -> Engine:
    """Return the engine called `name` with finished models in parts of at most `max_bytes`, whole where that is 0.

    Raises:
        UserError: there is no such engine, or it does not load such parts.
    """
    engine = engine_named(name)
    return engine.split(max_bytes) if max_bytes else engine


def memory_model_named(name: str) -> MemoryModel:
    """Return the memory model of the engine called `name`.

    Raises:
        UserError: its memory cannot be counted, or there is no such engine.
    """
    model = engine_named(name).memory
    if model is None:
        counted = ", ".join(known for known, engine in ENGINES.items() if engine.memory is not None)
        raise UserError(f"Memory is counted for {counted} only; '{name}' allocates otherwise: give a --budget in its place.")
    return model


def container_of(target: Target, model: str) -> Container:
    """Return how a finished model is written for `target`, for the model called `model`."""
    return engine_named(target.name).container(model)


def as_held(source: Source, target: Target) -> Source:
    """Return the tensors of `source` as the engine of `target` holds them."""
    return engine_named(target.name).held(source)


def model_as_held(model: Model, target: Target) -> Model:
    """Return the same module with its tensors as the engine of `target` holds them."""
    return engine_named(target.name).held_model(model)
