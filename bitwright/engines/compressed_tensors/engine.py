"""transformers and vLLM as engines: checkpoints of compressed-tensors, each with its own rules, reload and check."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import LINEAR_VIEW, Codec, Floats, Model, View, packed_codec, rounding_named
from bitwright.engines.check_result import Check
from bitwright.engines.checkpoint_container import CheckpointContainer
from bitwright.engines.compressed_tensors.check import check_in_transformers, check_in_vllm
from bitwright.engines.compressed_tensors.layout import CompressedTensors
from bitwright.engines.compressed_tensors.reload import reload_in_transformers, require_package, unpack_layer_by_layer
from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.engines.compressed_tensors.vllm import python_of_vllm
from bitwright.engines.engine import Engine
from bitwright.progress import Progress
from bitwright.spaces import Plan


@dataclass(frozen=True)
class TransformersEngine(Engine):
    """Plain `from_pretrained` of transformers, with the package compressed-tensors."""

    view: ClassVar[View] = LINEAR_VIEW

    def container(self, model: str) -> CheckpointContainer:
        """See `Engine.container`."""
        return CheckpointContainer(model, self.target, CompressedTensors(self.target.formats), reload_in_transformers)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """See `Engine.codec`."""
        return packed_codec(rounding_named(name, moments))

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
        return check_in_transformers(self.container(plan.model.source), model, plan, path, contexts=contexts, prompt=prompt, progress=progress)

    def require_writable(self) -> None:
        """See `Engine.require_writable`."""
        require_package()


@dataclass(frozen=True)
class VllmEngine(Engine):
    """vLLM, in an environment of its own, which `--engine-python` names."""

    view: ClassVar[View] = LINEAR_VIEW

    def container(self, model: str) -> CheckpointContainer:
        """See `Engine.container`."""
        return CheckpointContainer(model, self.target, CompressedTensors(self.target.formats), unpack_layer_by_layer)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """See `Engine.codec`."""
        return packed_codec(rounding_named(name, moments))

    def check(
        self, model: Model, plan: Plan, path: Path, *, contexts: list[NDArray[np.int64]], prompt: str, engine_python: str, progress: Progress
    ) -> Check:
        """See `Engine.check`."""
        container, python = self.container(plan.model.source), python_of_vllm(engine_python)
        return check_in_vllm(container, model, plan, path, contexts=contexts, prompt=prompt, python=python, progress=progress)

    def require_writable(self) -> None:
        """See `Engine.require_writable`."""
        require_package()

    def require_python(self, engine_python: str) -> None:
        """See `Engine.require_python`: this Python where none is named and it has vLLM."""
        python_of_vllm(engine_python)


ENGINES = TransformersEngine(TRANSFORMERS), VllmEngine(VLLM)
