"""Native checkpoints as an engine: a format for every expert and part of channels, loaded by transformers with `bitwright.native`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from bitwright.compress import MODULE_VIEW, Codec, Floats, Source, integer_codec, rounding_named
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.engines.checkpoint_container import CheckpointContainer, Reload
from bitwright.engines.engine import Engine
from bitwright.engines.narrowed_source import NarrowedSource, require_droppable
from bitwright.engines.native.check import check_native
from bitwright.engines.native.layout import NativeLayout
from bitwright.engines.native.reload import reload_native
from bitwright.engines.native.target import NATIVE, TARGETS
from bitwright.engines.shortened_source import ShortenedSource, require_shortenable
from bitwright.spaces import Structure, StructureKind, uncut


@dataclass(frozen=True)
class NativeEngine(Engine):
    """transformers with `import bitwright.native` as an engine: a format for each expert, packed in memory."""

    def container(self, model: str) -> CheckpointContainer:
        """Return the container of native checkpoints."""
        return CheckpointContainer(model, self.target, NativeLayout(), reload_native, view=MODULE_VIEW)

    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """Return the codec of grouped integers with the rounding `name`."""
        return integer_codec(rounding_named(name, moments))

    def require_structure(self, source: Source, kinds: Collection[StructureKind]) -> None:
        """Raise `UserError` if other than experts, channels that lie in parts, attentions or whole blocks are to be taken away, or the model of
        `source` cannot be written without some.
        """
        require_droppable(source, kinds)
        apart = [kind for kind in kinds if kind not in self.absences]
        if apart or not kinds:
            require_shortenable(self.target, self.container(source.name).home, source, apart, taken=("attention", "layers"))

    def narrowed(self, source: Source, structure: Structure) -> NarrowedSource:
        """Return the tensors of the blocks and attentions that are kept."""
        return ShortenedSource(source, structure)

    def check(self, request: CheckRequest) -> Check:
        """Load the checkpoint with `from_pretrained` and compare it, packed, with its plan."""
        return check_native(self.container(request.plan.model.source), request)


def plain(model: str, reload: Reload) -> CheckpointContainer:
    """Return checkpoints of the model called `model` as transformers saves it, floats alone, which `reload` compares with what was written."""
    return CheckpointContainer(model, replace(NATIVE, cut=uncut), NativeLayout(), reload)


ENGINES = tuple(NativeEngine(target) for target in TARGETS)
