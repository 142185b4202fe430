"""Engines that load what is written: their rules, containers and checks."""

from bitwright.engines.by_name import (
    DEFAULT_ENGINE,
    ENGINE_PARTS,
    ENGINES,
    as_held,
    engine_named,
    engine_names,
    memory_model_named,
    model_as_held,
    profile_named,
    split_engine,
    target_named,
)
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import HEALTHY_NATS, Check
from bitwright.engines.checking import N_CONTEXTS, N_TEXTS, check, digest_row, prefixes
from bitwright.engines.checkpoint_container import CheckpointContainer
from bitwright.engines.checkpoint_source import CheckpointSource
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.engine import Engine
from bitwright.engines.layout import Described, Layout
from bitwright.engines.llama_cpp.profiling import profile_machine
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.memory import Anatomy, MemoryUse, Serving
from bitwright.engines.moved_channels import moved_source
from bitwright.engines.native.engine import NativeEngine, plain
from bitwright.engines.native.quantizer import NativeConfig, NativeQuantizer
from bitwright.engines.native.target import NATIVE, NATIVE_CHANNELS
from bitwright.engines.no_engine import INTEGERS, NoEngine

__all__ = [
    "DEFAULT_ENGINE",
    "ENGINES",
    "ENGINE_PARTS",
    "HEALTHY_NATS",
    "INTEGERS",
    "LLAMA_CPP",
    "MODEL",
    "NATIVE",
    "NATIVE_CHANNELS",
    "N_CONTEXTS",
    "N_TEXTS",
    "Anatomy",
    "Check",
    "CheckRequest",
    "CheckpointContainer",
    "CheckpointSource",
    "Container",
    "Described",
    "Engine",
    "Layout",
    "MemoryUse",
    "NativeConfig",
    "NativeEngine",
    "NativeQuantizer",
    "NoEngine",
    "Recipe",
    "Serving",
    "as_held",
    "check",
    "digest_row",
    "engine_named",
    "engine_names",
    "memory_model_named",
    "model_as_held",
    "moved_source",
    "plain",
    "prefixes",
    "profile_machine",
    "profile_named",
    "split_engine",
    "target_named",
]
