"""Packed integers that no engine loads: for comparing methods, with sizes but no finished model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import GGUF_VIEW, Codec, CombinedCodec, Floats, Model, View, integer_codec, rounding_named
from bitwright.engines.check_result import Check
from bitwright.engines.container import Container
from bitwright.engines.engine import Engine
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.errors import PlanError
from bitwright.progress import Progress
from bitwright.spaces import INTEGER_FORMATS, Plan, Target

#: Packed integers as the papers of the field use them, to compare methods and for small models whose rows no block of GGUF divides.
INTEGERS = Target("integers", "1", INTEGER_FORMATS, alignment=1)


@dataclass(frozen=True)
class NoEngine(Engine):
    """See the module; sizes are counted as a GGUF file would have them. `more` are codecs of formats of `target` that are not integers in groups."""

    view: ClassVar[View] = GGUF_VIEW

    more: tuple[Codec, ...] = ()

    def container(self, model: str) -> Container:  # noqa: ARG002
        """See `Engine.container`."""
        return GgufContainer()

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """See `Engine.codec`."""
        return CombinedCodec((*self.more, integer_codec(rounding_named(name, moments))))

    def check(
        self,
        model: Model,  # noqa: ARG002
        plan: Plan,  # noqa: ARG002
        path: Path,  # noqa: ARG002
        *,
        contexts: list[NDArray[np.int64]],  # noqa: ARG002
        prompt: str,  # noqa: ARG002
        engine_python: str,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
    ) -> Check:
        """See `Engine.check`.

        Raises:
            PlanError: always.
        """
        raise self._refusal()

    def require_writable(self) -> None:
        """See `Engine.require_writable`."""
        raise self._refusal()

    def _refusal(self) -> PlanError:
        return PlanError(
            f"A file is written for an engine that loads it; '{self.name}' is no engine's, but for comparing methods: use `bitwright search` and "
            "`bitwright plan` with it, or --target llama.cpp."
        )


ENGINE = NoEngine(INTEGERS)
