"""llama.cpp as an engine: one GGUF file, tensors as libggml packs them, its own memory, parity and check."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from bitwright.compress import GGML, OBS, Codec, Floats, GgmlCodec, GgmlErrorFeedback, Source, View
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.engines.container import Container
from bitwright.engines.engine import Engine
from bitwright.engines.llama_cpp.check import check_in_llama_cpp
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.joined_source import structured_source
from bitwright.engines.llama_cpp.memory_model import LlamaCppMemory, server_arguments
from bitwright.engines.llama_cpp.parity import LlamaCppParity
from bitwright.engines.llama_cpp.split_gguf_container import SplitGgufContainer, require_part_bytes
from bitwright.engines.llama_cpp.structured_source import joined_roles, require_structure_taken
from bitwright.engines.llama_cpp.target import LLAMA_CPP, held
from bitwright.engines.llama_cpp.view import LLAMA_CPP_VIEW
from bitwright.engines.memory import MemoryModel, Serving
from bitwright.engines.narrowed_source import NarrowedSource
from bitwright.engines.parity import Parity
from bitwright.errors import UserError
from bitwright.spaces import Structure, StructureKind


@dataclass(frozen=True)
class LlamaCppEngine(Engine):
    """llama.cpp as an engine: GGUF files, libggml's quantizers, and a check inside llama.cpp.

    Files are written as parts of at most `split_max_bytes`, as one where that is 0.
    """

    split_max_bytes: int = 0

    file_name: ClassVar[str] = "model.gguf"
    view: ClassVar[View] = LLAMA_CPP_VIEW
    memory: ClassVar[MemoryModel | None] = LlamaCppMemory()
    parity: ClassVar[Parity | None] = LlamaCppParity()
    chooses_cache_types: ClassVar[bool] = True
    moves_channels: ClassVar[bool] = True
    ignores_windows: ClassVar[bool] = True
    writes_tensor_types: ClassVar[bool] = True

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the codecs: libggml's own quantizers, and those with error feedback."""
        return (GGML, OBS)

    def container(self, model: str) -> Container:  # noqa: ARG002
        """Return the container of GGUF files, whole or split."""
        return SplitGgufContainer(self.split_max_bytes) if self.split_max_bytes else GgufContainer()

    def split(self, max_bytes: int) -> Engine:
        """Return the engine with files written as parts, as `llama-gguf-split` names them."""
        require_part_bytes(max_bytes)
        return replace(self, split_max_bytes=max_bytes)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """Return libggml's codec, or the one with error feedback."""
        return GgmlErrorFeedback(moments) if name == OBS else GgmlCodec()

    def check(self, request: CheckRequest) -> Check:
        """Load the file in llama.cpp and compare it with its plan."""
        return check_in_llama_cpp(request)

    def held(self, source: Source) -> Source:
        """Return the tensors as llama.cpp holds them: latent attention split by head."""
        return held(source)

    def require_structure(self, source: Source, kinds: Collection[StructureKind]) -> None:
        """Raise `UserError` if no architecture of llama.cpp takes the model of `source` without parts of these kinds."""
        require_structure_taken(source, kinds)

    def narrowed(self, source: Source, structure: Structure) -> NarrowedSource:
        """Return the tensors and metadata that llama.cpp loads with that structure."""
        return structured_source(source, structure)

    def joined_roles(self, source: Source, kinds: Collection[StructureKind]) -> tuple[str, ...]:
        """Return q, k and v where the architecture of blocks that differ has them in one tensor."""
        return joined_roles(source, kinds)

    def require_codec(self, name: str) -> None:
        """Raise `UserError` if `name` is none of `codecs`."""
        if name not in self.codecs:
            raise UserError(
                f"The codec for {self.name} must be one of {', '.join(self.codecs)}; '{name}' is for integers in groups: choose one of them, or "
                "another target."
            )

    def serve_command(self, model: str, serving: Serving) -> str:
        """Return a `llama-server` command line with the context, parallel sequences and cache types."""
        return f"llama-server -m {model} {server_arguments(serving)}"


ENGINE = LlamaCppEngine(LLAMA_CPP)
