"""Packed integers that no engine loads: for comparing methods, with sizes but no finished model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bitwright.compress import GGUF_VIEW, Codec, CombinedCodec, Floats, View, integer_codec, rounding_named
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.engines.container import Container
from bitwright.engines.engine import Engine
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.errors import PlanError
from bitwright.spaces import INTEGER_FORMATS, Target

#: Packed integers as the papers of the field use them, to compare methods and for small models whose rows no block of GGUF divides.
INTEGERS = Target("integers", "1", INTEGER_FORMATS, alignment=1)


@dataclass(frozen=True)
class NoEngine(Engine):
    """Target without an engine; sizes are those of a GGUF file. `more` are codecs of formats of `target` that are not integers in groups."""

    view: ClassVar[View] = GGUF_VIEW

    more: tuple[Codec, ...] = ()

    def container(self, model: str) -> Container:  # noqa: ARG002
        """Return the container of GGUF files, which counts the sizes."""
        return GgufContainer()

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """Return a codec of grouped integers with the rounding `name`, and of `more`."""
        return CombinedCodec((*self.more, integer_codec(rounding_named(name, moments))))

    def check(self, request: CheckRequest) -> Check:  # noqa: ARG002
        """Refuse to check.

        Raises:
            PlanError: always.
        """
        raise self._refusal()

    def require_writable(self) -> None:
        """Raise `PlanError`: there is no engine to write for."""
        raise self._refusal()

    def _refusal(self) -> PlanError:
        return PlanError(
            f"A file is written for an engine that loads it; '{self.name}' is no engine's, but for comparing methods: use `bitwright search` and "
            "`bitwright plan` with it, or --target llama.cpp."
        )


ENGINE = NoEngine(INTEGERS)
