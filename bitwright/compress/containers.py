"""Which container and which codec a target's models are written with."""

from bitwright.compress.codec import Codec
from bitwright.compress.container import Container
from bitwright.compress.experts import ExpertsApart
from bitwright.compress.gguf_container import GgufContainer
from bitwright.compress.integers import IntegerCodec
from bitwright.compress.source import Source
from bitwright.errors import PlanError
from bitwright.spaces import LLAMA_CPP, Target


def container_of(target: Target, model: str) -> Container:
    """What `target` loads, for the model called `model`. A target that is no engine's counts its sizes as a GGUF file would have them."""
    del target, model
    return GgufContainer()


def codec_of(target: Target) -> Codec:
    """What packs tensors into the formats of `target`."""
    del target
    return IntegerCodec()


def as_held(source: Source, target: Target) -> Source:
    """The tensors of `source` as the target holds them."""
    return ExpertsApart(source) if target.experts_apart else source


def require_container(target: Target) -> None:
    """Refuse a target for which nothing can be written.

    Raises:
        PlanError: the target is no engine's.
    """
    if target.container == "none":
        raise PlanError(
            f"A file is written for an engine that loads it; '{target.name}' is no engine's, but for comparing methods: use `bitwright search` and "
            f"`bitwright plan` with it, or --target {LLAMA_CPP.name}."
        )
