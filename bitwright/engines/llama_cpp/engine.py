"""llama.cpp as an engine: one GGUF file, tensors as libggml packs them, its own memory, parity and check."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import GGML, Codec, Floats, GgmlCodec, Model, Source, View
from bitwright.engines.check_result import Check
from bitwright.engines.container import Container
from bitwright.engines.engine import Engine
from bitwright.engines.llama_cpp.check import check_in_llama_cpp
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.memory_model import LlamaCppMemory, server_arguments
from bitwright.engines.llama_cpp.parity import LlamaCppParity
from bitwright.engines.llama_cpp.target import LLAMA_CPP, held
from bitwright.engines.llama_cpp.view import LLAMA_CPP_VIEW
from bitwright.engines.memory import MemoryModel, Serving
from bitwright.engines.parity import Parity
from bitwright.errors import UserError
from bitwright.progress import Progress
from bitwright.spaces import Plan


@dataclass(frozen=True)
class LlamaCppEngine(Engine):
    """See the module."""

    file_name: ClassVar[str] = "model.gguf"
    view: ClassVar[View] = LLAMA_CPP_VIEW
    memory: ClassVar[MemoryModel | None] = LlamaCppMemory()
    parity: ClassVar[Parity | None] = LlamaCppParity()
    chooses_cache_types: ClassVar[bool] = True
    ignores_windows: ClassVar[bool] = True
    writes_tensor_types: ClassVar[bool] = True

    @property
    def codecs(self) -> tuple[str, ...]:
        """See `Engine.codecs`."""
        return (GGML,)

    def container(self, model: str) -> Container:  # noqa: ARG002
        """See `Engine.container`."""
        return GgufContainer()

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:  # noqa: ARG002
        """See `Engine.codec`."""
        return GgmlCodec()

    def check(
        self,
        model: Model,
        plan: Plan,
        path: Path,
        *,
        contexts: list[NDArray[np.int64]],
        prompt: str,
        engine_python: str,  # noqa: ARG002
        progress: Progress,
    ) -> Check:
        """See `Engine.check`."""
        return check_in_llama_cpp(model, plan, path, contexts=contexts, prompt=prompt, progress=progress)

    def held(self, source: Source) -> Source:
        """See `Engine.held`: latent attention is held by head."""
        return held(source)

    def require_codec(self, name: str) -> None:
        """See `Engine.require_codec`."""
        if name not in self.codecs:
            raise UserError(
                f"Tensors for {self.name} are packed by libggml's own quantizers; '{name}' is for integers in groups: leave --codec out, or "
                "choose another target."
            )

    def serve_command(self, model: str, serving: Serving) -> str:
        """See `Engine.serve_command`."""
        return f"llama-server -m {model} {server_arguments(serving)}"


ENGINE = LlamaCppEngine(LLAMA_CPP)
