"""transformers and vLLM as engines: checkpoints of compressed-tensors, each with its own rules, reload and check."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from bitwright.compress import LINEAR_VIEW, Codec, Floats, Source, View, packed_codec, rounding_named
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.engines.checkpoint_container import CheckpointContainer, Reload
from bitwright.engines.compressed_tensors.check import check_in_transformers, check_in_vllm
from bitwright.engines.compressed_tensors.layout import CompressedTensors
from bitwright.engines.compressed_tensors.reload import reload_in_transformers, require_package, unpack_layer_by_layer
from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.engines.compressed_tensors.vllm import python_of_vllm
from bitwright.engines.engine import Engine
from bitwright.engines.narrowed_source import NarrowedSource
from bitwright.engines.shortened_source import ShortenedSource, require_shortenable
from bitwright.errors import UserError
from bitwright.spaces import Structure, StructureKind


@dataclass(frozen=True)
class CompressedTensorsEngine(Engine):
    """Engine that loads checkpoints of the package compressed-tensors."""

    view: ClassVar[View] = LINEAR_VIEW
    reload: ClassVar[Reload]

    def container(self, model: str) -> CheckpointContainer:
        """Return the container of compressed-tensors, reloaded as the engine does."""
        return CheckpointContainer(model, self.target, CompressedTensors(self.target.formats), type(self).reload)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """Return the codec of packed formats with the rounding `name`."""
        return packed_codec(rounding_named(name, moments))

    def require_structure(self, source: Source, kinds: Collection[StructureKind]) -> None:
        """Raise `UserError` if other than whole blocks are to be taken away, or the model of `source` cannot be written without some."""
        require_shortenable(self.target, self.container(source.name).home, source, kinds)

    def narrowed(self, source: Source, structure: Structure) -> NarrowedSource:
        """Return the tensors of the blocks and experts that are kept.

        Raises:
            UserError: it takes parts of blocks away.
        """
        if structure.unattended:
            raise UserError(
                f"{self.name} loads blocks whole or not at all; this structure takes the attention of block {structure.unattended[0]} away: choose "
                "--structure layers, or --target native or llama.cpp."
            )
        return ShortenedSource(source, structure)

    def require_writable(self) -> None:
        """Raise `LibraryError` if the package compressed-tensors is missing."""
        require_package()


@dataclass(frozen=True)
class TransformersEngine(CompressedTensorsEngine):
    """Plain `from_pretrained` of transformers, which reloads a checkpoint whole."""

    reload: ClassVar[Reload] = staticmethod(reload_in_transformers)

    def check(self, request: CheckRequest) -> Check:
        """Load the checkpoint with `from_pretrained` and compare it with its plan."""
        return check_in_transformers(self.container(request.plan.model.source), request)


@dataclass(frozen=True)
class VllmEngine(CompressedTensorsEngine):
    """vLLM, in an environment of its own, which `--engine-python` names; a checkpoint is reloaded layer by layer."""

    reload: ClassVar[Reload] = staticmethod(unpack_layer_by_layer)

    def check(self, request: CheckRequest) -> Check:
        """Load the checkpoint in vLLM, where a Python has it, and compare it with its plan."""
        return check_in_vllm(self.container(request.plan.model.source), request, python=python_of_vllm(request.engine_python))

    def require_python(self, engine_python: str) -> None:
        """Raise if `engine_python` does not exist; empty means this Python, if it has vLLM."""
        python_of_vllm(engine_python)


ENGINES = TransformersEngine(TRANSFORMERS), VllmEngine(VLLM)
