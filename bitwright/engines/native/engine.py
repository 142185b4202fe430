"""Native checkpoints as an engine: a format for every expert and part of channels, loaded by transformers with `bitwright.native`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import MODULE_VIEW, Codec, Floats, Model, integer_codec, rounding_named
from bitwright.engines.check_result import Check
from bitwright.engines.checkpoint_container import CheckpointContainer, Reload
from bitwright.engines.engine import Engine
from bitwright.engines.native.check import check_native
from bitwright.engines.native.layout import NativeLayout
from bitwright.engines.native.reload import reload_native
from bitwright.engines.native.target import NATIVE, TARGETS
from bitwright.progress import Progress
from bitwright.spaces import Plan, uncut


@dataclass(frozen=True)
class NativeEngine(Engine):
    """See the module."""

    def container(self, model: str) -> CheckpointContainer:
        """See `Engine.container`."""
        return CheckpointContainer(model, self.target, NativeLayout(), reload_native, view=MODULE_VIEW)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """See `Engine.codec`."""
        return integer_codec(rounding_named(name, moments))

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
        return check_native(self.container(plan.model.source), model, plan, path, contexts=contexts, prompt=prompt, progress=progress)


def plain(model: str, reload: Reload) -> CheckpointContainer:
    """Return checkpoints of the model called `model` as transformers saves it, floats alone, which `reload` compares with what was written."""
    return CheckpointContainer(model, replace(NATIVE, cut=uncut), NativeLayout(), reload)


ENGINES = tuple(NativeEngine(target) for target in TARGETS)
