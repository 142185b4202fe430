"""Engines that load what is written: their rules, containers and checks."""

from bitwright.engines.by_target import as_held, codec_of, codecs_of, container_of, model_as_held, plain, require_codec, require_container
from bitwright.engines.check_result import HEALTHY_NATS, Check, divergences, mean_divergence, steady_context
from bitwright.engines.checking import N_CONTEXTS, check, prefixes, require_engine_python
from bitwright.engines.checkpoint_source import CheckpointSource
from bitwright.engines.compressed_tensors.target import VLLM
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.llama_cpp.gguf_writer import header_bytes, write_gguf
from bitwright.engines.llama_cpp.log import why_refused
from bitwright.engines.llama_cpp.memory_model import MemoryUse, Serving, memory_use, require_accounting
from bitwright.engines.llama_cpp.parity import compare_original, parity_contexts
from bitwright.engines.llama_cpp.profiling import parse_threads, profile_machine
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.native.quantizer import NativeConfig, NativeQuantizer
from bitwright.engines.native.target import NATIVE, NATIVE_CHANNELS
from bitwright.engines.targets import TARGETS, engine

__all__ = [
    "HEALTHY_NATS",
    "LLAMA_CPP",
    "MODEL",
    "NATIVE",
    "NATIVE_CHANNELS",
    "N_CONTEXTS",
    "TARGETS",
    "VLLM",
    "Check",
    "CheckpointSource",
    "Container",
    "LlamaCpp",
    "MemoryUse",
    "NativeConfig",
    "NativeQuantizer",
    "Recipe",
    "Serving",
    "as_held",
    "check",
    "codec_of",
    "codecs_of",
    "compare_original",
    "container_of",
    "divergences",
    "engine",
    "header_bytes",
    "mean_divergence",
    "memory_use",
    "model_as_held",
    "parity_contexts",
    "parse_threads",
    "plain",
    "prefixes",
    "profile_machine",
    "require_accounting",
    "require_codec",
    "require_container",
    "require_engine_python",
    "steady_context",
    "why_refused",
    "write_gguf",
]
