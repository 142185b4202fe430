"""Engine: one object that says what an engine loads, and how a model is held, written, checked, counted and served for it.

An engine is a folder beside this file that ends in `engine.py`, or a package of its own that names an object under the entry points of
`bitwright.engines`. Whatever differs from engine to engine is asked here, never by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from bitwright.compress import MODULE_VIEW, ROUNDING_PARTS, Codec, CutSource, Floats, Model, Source, View, cut_pieces
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.engines.container import Container
from bitwright.engines.memory import MemoryModel, Serving
from bitwright.engines.narrowed_source import NarrowedSource
from bitwright.engines.parity import Parity
from bitwright.errors import ModelError, UserError
from bitwright.spaces import DROP, PRUNE, STRUCTURE_KINDS, Format, Structure, StructureKind, Target, part_of, uncut

_NO_STRUCTURE = "Parts are taken away for llama.cpp, transformers, vllm and native, which load what is left; {name} does not: leave --structure out."


@dataclass(frozen=True)
class Engine(ABC):
    """Engine with the formats, rules, ties and cuts of `target`, by whose name it is called.

    `file_name` is the default name of a finished model, and `view` the tensors that it sees of a model. `memory` counts a run and `parity`
    compares the engine with torch on the original, where it is known how. `chooses_cache_types` says whether the types of
    keys and values are ours to choose, `moves_channels` whether scales and orders of channels may move between its tensors, `ignores_windows` whether
    sliding windows of some models are computed as if they were none, and `writes_tensor_types` whether a plan is also written as tensor types of
    llama-quantize.
    """

    target: Target

    file_name: ClassVar[str] = "model"
    view: ClassVar[View] = MODULE_VIEW
    memory: ClassVar[MemoryModel | None] = None
    parity: ClassVar[Parity | None] = None
    chooses_cache_types: ClassVar[bool] = False
    moves_channels: ClassVar[bool] = False
    ignores_windows: ClassVar[bool] = False
    writes_tensor_types: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.target.name

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the roundings that make its codes, the usual one first."""
        return ROUNDING_PARTS.names

    @abstractmethod
    def container(self, model: str) -> Container:
        """Return how a finished model is written, for the model that a user calls `model`."""

    @abstractmethod
    def codec(self, name: str, moments: Mapping[str, Floats]) -> Codec:
        """Return what packs tensors: that of `name`, one of `codecs`, with the second moments of layers' inputs where it goes by them."""

    @abstractmethod
    def check(self, request: CheckRequest) -> Check:
        """Load what lies at the path of `request` in the engine and compare it with its plan.

        Raises:
            ModelError: it cannot be read, by us or by the engine.
        """

    def held(self, source: Source) -> Source:
        """Return the tensors of `source` as the engine holds them: cut as its target cuts them.

        Raises:
            ModelError: they cannot be cut.
        """
        if self.target.cut is uncut:
            return source
        names = {tensor.name for tensor in source.tensors}
        cut = (tensor for tensor in source.tensors if any(part_of(part.tensor.name) >= 0 for part in self.target.cut(tensor)[:1]))
        if any(f"{tensor.name.removesuffix('.weight')}.bias" in names for tensor in cut):
            raise ModelError(
                f"{self.name} cuts feed-forward parts without biases into their channels; {source.name} has biases: use --target native."
            )
        return CutSource(source, self.target.cut)

    def held_model(self, model: Model) -> Model:
        """Return the same module with its tensors as the engine holds them.

        Raises:
            ModelError: see `held`.
        """
        return replace(model, source=self.held(model.source), pieces=cut_pieces(model.pieces, model.tensors, self.target.cut))

    def require_structure(self, source: Source, kinds: Collection[StructureKind]) -> None:  # noqa: ARG002
        """Raise if the engine cannot load the model of `source`, given as it holds it, without parts of these kinds.

        Raises:
            UserError: it does not.
        """
        raise UserError(_NO_STRUCTURE.format(name=self.name))

    @property
    def absences(self) -> Mapping[StructureKind, str]:
        """Formats of what is taken away, by kind, for an engine that takes it away as a choice of format: each unit by itself."""
        names = {form.name for form in self.target.formats}
        absent: tuple[tuple[StructureKind, Format], ...] = (("experts", DROP), ("channels", PRUNE))
        return {kind: form.name for kind, form in absent if form.name in names}

    def kinds_taken(self, source: Source, kinds: Collection[StructureKind]) -> tuple[StructureKind, ...]:
        """Return the kinds of parts that may be taken away where these are asked for: where every kind is, those that the model of `source`, given as
        the engine holds it, can lose.

        Raises:
            UserError: a kind that is asked for cannot go, or none can.
        """
        if not kinds:
            return ()
        if set(kinds) != set(STRUCTURE_KINDS):
            self.require_structure(source, kinds)
            return tuple(kinds)
        found = tuple(kind for kind in STRUCTURE_KINDS if self._can_lose(source, kind))
        self.require_structure(source, found or kinds)
        return found

    def _can_lose(self, source: Source, kind: StructureKind) -> bool:
        try:
            self.require_structure(source, (kind,))
        except UserError:
            return False
        return True

    def joined_roles(self, source: Source, kinds: Collection[StructureKind]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the roles of matrices that are written as one, and have one format, where parts of these kinds are taken away."""
        return ()

    def narrowed(self, source: Source, structure: Structure) -> NarrowedSource:  # noqa: ARG002
        """Return what is written of a `source` of which only a structure is kept.

        Raises:
            UserError: the engine loads no such model, or the structure cannot be made of this one.
        """
        raise UserError(_NO_STRUCTURE.format(name=self.name))

    def require_codec(self, name: str) -> None:
        """Raise if the rounding `name` does not make the formats of this engine.

        Raises:
            UserError: it is none of `codecs`.
        """
        if name not in self.codecs:
            raise UserError(f"The codec for {self.name} must be one of {', '.join(self.codecs)}; '{name}' is not: choose one of them.")

    def split(self, max_bytes: int) -> "Engine":
        """Return the engine with finished models written as parts of at most `max_bytes` each.

        Raises:
            UserError: it does not load such parts, or they would be too small.
        """
        raise UserError(
            f"A model can be written as parts of a size for llama.cpp alone; for {self.name} {max_bytes:,} bytes cannot be kept to: leave out "
            "--split-max-size."
        )

    def require_writable(self) -> None:  # noqa: B027  # most engines need nothing
        """Raise if nothing can be written for this engine here.

        Raises:
            PlanError: it is no engine.
            LibraryError: a package is missing that reads what is written.
        """

    def require_python(self, engine_python: str) -> None:
        """Raise if the engine cannot be run by `engine_python`, empty where none is named.

        Raises:
            UserError: it does not exist, or the engine is run by this Python alone.
        """
        if engine_python:
            raise UserError(
                f"Only an engine in an environment of its own is run by another Python; what is for {self.name} is checked by this one: leave out "
                "--engine-python."
            )

    def serve_command(self, model: str, serving: Serving) -> str:  # noqa: ARG002
        """Return the command line that serves the finished `model` as it was counted, empty where there is none."""
        return ""
