"""Which container and which codec a target's models are written with."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from bitwright.compress import (
    GGML,
    ROUNDING_PARTS,
    Apart,
    Codec,
    Floats,
    GgmlCodec,
    IntegerCodec,
    LatentByHead,
    Model,
    PackedCodec,
    Rounding,
    Source,
    cut_pieces,
    is_latent,
    rounding_named,
)
from bitwright.engines.checkpoint_container import CheckpointContainer, Reload
from bitwright.engines.compressed_tensors.layout import CompressedTensors
from bitwright.engines.compressed_tensors.reload import reload_in_transformers, require_package, unpack_layer_by_layer
from bitwright.engines.compressed_tensors.target import TRANSFORMERS
from bitwright.engines.container import Container
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.native.layout import NativeLayout
from bitwright.engines.native.reload import reload_native
from bitwright.engines.native.target import NATIVE
from bitwright.errors import ModelError, PlanError, UserError
from bitwright.spaces import Target, part_of, uncut


def compressed_tensors(target: Target, model: str) -> CheckpointContainer:
    """Checkpoints of packed integers for `target`, of the model called `model`."""
    reload = reload_in_transformers if target is TRANSFORMERS else unpack_layer_by_layer
    return CheckpointContainer(model, target, CompressedTensors(target.formats), reload)


def native(target: Target, model: str) -> CheckpointContainer:
    """Native checkpoints of the model called `model`."""
    return CheckpointContainer(model, target, NativeLayout(), reload_native)


def plain(model: str, reload: Reload) -> CheckpointContainer:
    """Checkpoints of the model called `model` as transformers saves it, of floats alone, which `reload` compares with what was written."""
    return CheckpointContainer(model, replace(NATIVE, cut=uncut), NativeLayout(), reload)


#: a target that is no engine's counts its sizes as a GGUF file would have them
_CONTAINERS: dict[str, Callable[[Target, str], Container]] = {
    "none": lambda *_: GgufContainer(),
    "gguf": lambda *_: GgufContainer(),
    "compressed-tensors": compressed_tensors,
    "native": native,
}
_CODECS: dict[str, Callable[[Rounding], Codec]] = {"none": IntegerCodec, "compressed-tensors": PackedCodec, "native": IntegerCodec}


def container_of(target: Target, model: str) -> Container:
    """What `target` loads, for the model called `model`."""
    return _CONTAINERS[target.container](target, model)


def codecs_of(target: Target) -> tuple[str, ...]:
    """The words for what may make the codes of `target`, the usual one first."""
    return (GGML,) if target.container == "gguf" else ROUNDING_PARTS.names


def require_codec(target: Target, name: str) -> None:
    """Refuse a codec that does not make the formats of `target`.

    Raises:
        UserError: it is none of `codecs_of`.
    """
    known = codecs_of(target)
    if name in known:
        return
    if known == (GGML,):
        raise UserError(
            f"Tensors for {target.name} are packed by libggml's own quantizers; '{name}' is for integers in groups: leave --codec out, or "
            "choose another target."
        )
    raise UserError(f"The codec for {target.name} must be one of {', '.join(known)}; '{name}' is not: choose one of them.")


def codec_of(target: Target, name: str, moments: Mapping[str, Floats]) -> Codec:
    """What packs tensors into the formats of `target`: one of `codecs_of`, with the second moments of layers' inputs where it goes by them."""
    return GgmlCodec() if name == GGML else _CODECS[target.container](rounding_named(name, moments))


def as_held(source: Source, target: Target) -> Source:
    """The tensors of `source` as the target holds them."""
    if target.cut is not uncut:
        _require_cuttable(source, target)
        return Apart(source, target.cut)
    return LatentByHead(source) if target.container == "gguf" and is_latent(source) else source


def _require_cuttable(source: Source, target: Target) -> None:
    names = {tensor.name for tensor in source.tensors}
    parts = (part.tensor.name for tensor in source.tensors for part in target.cut(tensor)[:1])
    biased = next((name for name in parts if part_of(name) >= 0 and f"{name.partition('.part.')[0]}.bias" in names), "")
    if biased:
        raise ModelError(
            f"{target.name} cuts feed-forward parts without biases into their channels; {source.name} has biases: use --target {NATIVE.name}."
        )


def model_as_held(model: Model, target: Target) -> Model:
    """The same module with its tensors as the target holds them."""
    return replace(model, source=as_held(model.source, target), pieces=cut_pieces(model.pieces, model.tensors, target.cut))


def require_container(target: Target) -> None:
    """Refuse a target for which nothing can be written.

    Raises:
        PlanError: the target is no engine's.
        LibraryError: a package is missing that reads what is written.
    """
    if target.container == "none":
        raise PlanError(
            f"A file is written for an engine that loads it; '{target.name}' is no engine's, but for comparing methods: use `bitwright search` and "
            f"`bitwright plan` with it, or --target {LLAMA_CPP.name}."
        )
    if target.container == "compressed-tensors":
        require_package()
