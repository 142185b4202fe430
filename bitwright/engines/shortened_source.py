"""Tensors of a model without some of its blocks, attentions or routed experts, under the names of a checkpoint: what is kept is whole, and numbered
anew.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import (
    ROUTER,
    Bytes,
    CheckpointFiles,
    DroppedWeights,
    Floats,
    NarrowedRouter,
    Source,
    Weights,
    attention_paths,
    is_of_experts,
    last_matrices,
    matrix_shape,
    renumbered,
    whole_structure,
)
from bitwright.engines.narrowed_source import NarrowedSource, nothing, require_droppable, require_same_experts, require_unbiased
from bitwright.errors import UserError
from bitwright.spaces import WHOLE_BLOCK_KINDS, Structure, StructureKind, Target, Tensor, expert_of, role_of

_Value = TypeVar("_Value", bound=np.generic)


class ShortenedSource(NarrowedSource):
    """Source `whole` without the blocks of which a `structure` keeps nothing, and without the attentions and experts that it does not keep."""

    def __init__(self, whole: Source, structure: Structure) -> None:
        """Number the blocks and experts anew.

        Raises:
            UserError: the structure cannot be made of this model, or takes less than whole parts of blocks away.
        """
        full = whole_structure(whole)
        structure.require_within(full)
        if not structure.is_whole_parts(full):
            raise UserError(
                f"A checkpoint holds the parts of a block whole or not at all; this structure narrows some of {whole.name}: choose --structure "
                "layers, or --target llama.cpp."
            )
        require_same_experts(whole, structure)
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings, self.whole = whole.fingerprint, whole.settings, whole
        absent = tuple(f"{path}." for layer, path in attention_paths(whole.tensors).items() if layer in structure.unattended)
        names = {tensor: renumbered(tensor.name, structure.gone) for tensor in whole.tensors if not tensor.name.startswith(absent)}
        self._of = {name: tensor for tensor, name in names.items() if name}
        self._dropped, shrunk = structure.dropped(full), bool(structure.dropped(full))
        blocks = {tensor.name: expert_of(tensor.name)[0] for tensor in whole.tensors if shrunk and is_of_experts(tensor)}
        self._experts = {name: list(structure.experts[blocks[tensor.name]]) for name, tensor in self._of.items() if tensor.name in blocks}
        self.tensors = tuple(replace(tensor, name=name, shape=self._shape(name)) for name, tensor in self._of.items())

    @property
    def context_length(self) -> int:
        """Context length that the model was made for, in tokens; 0 where it is not known."""
        return self.whole.context_length

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self._of[name].shape
        return (len(self._experts[name]), *shape[1:]) if name in self._experts else shape

    def renamed(self, formats: Mapping[str, str]) -> dict[str, str]:
        """Return the formats of a plan of the whole model (tensor → format) by the names of what is kept."""
        return {name: formats[tensor.name] for name, tensor in self._of.items() if tensor.name in formats}

    def packed(self, tensor: Tensor, whole: Callable[[Tensor], Bytes], formats: Mapping[str, str]) -> Bytes:  # noqa: ARG002
        """Return the bytes `(n_bytes,)` of a tensor, those that `whole` gives of it or of its experts."""
        return self._kept(tensor, whole(self._of[tensor.name]))

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor as float32 `(n_rows, n_columns)`."""
        return self._kept(tensor, self.whole.read(self._of[tensor.name])).reshape(-1, tensor.shape[-1])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes of a tensor."""
        return self._kept(tensor, self.whole.stored(self._of[tensor.name]))

    def _kept(self, tensor: Tensor, values: NDArray[_Value]) -> NDArray[_Value]:
        """Return what is kept of the values of a whole tensor, flat where experts go."""
        if tensor.name not in self._experts:
            return values
        return values.reshape(self._of[tensor.name].shape[0], -1)[self._experts[tensor.name]].reshape(-1)

    def widened(self, file: Source) -> Weights:
        """Return what gives each matrix of the whole model as `file` has it, float32 `(n_rows, n_columns)` by name: without those of a block that is
        gone but the last of its parts, which are zero.
        """
        return self.widened_weights({tensor.name: partial(file.read, tensor) for tensor in file.tensors if len(tensor.shape) > 1})

    def widened_weights(self, weights: Weights) -> Weights:
        """Return `weights` by the names of the whole model, zeros for the last matrices of what is gone and for experts, and routers that do not
        choose these.
        """
        kept = {tensor.name for tensor in self._of.values()}
        gone = {tensor.name: partial(nothing, tensor) for tensor in chain(*last_matrices(self.whole.tensors).values()) if tensor.name not in kept}
        return {**{self._of[name].name: self._widened(name, given) for name, given in weights.items()}, **gone}

    def _widened(self, name: str, given: Callable[[], Floats]) -> Callable[[], Floats]:
        if isinstance(given, DroppedWeights):  # whose router is that of a block of the whole model
            return replace(given, expert=expert_of(self._of[name].name))
        if name not in self._experts:
            return given
        tensor, kept = self._of[name], self._experts[name]
        wide, layer = partial(_spread, given, tensor, tuple(kept)), expert_of(tensor.name)[0]
        return NarrowedRouter(wide, layer, self._dropped[layer]) if role_of(tensor) == ROUTER else wide

    def require_whole_blocks(self, formats: Mapping[str, str]) -> None:
        """Raise nothing: every row is kept whole."""


def _spread(given: Callable[[], Floats], tensor: Tensor, kept: tuple[int, ...]) -> Floats:
    """Return the weights of a whole tensor, zero but for the experts that are kept."""
    wide = np.zeros(tensor.shape, dtype=np.float32)
    wide[list(kept)] = given().reshape(len(kept), *tensor.shape[1:])
    return wide.reshape(matrix_shape(tensor))


def require_shortenable(
    target: Target, files: CheckpointFiles, source: Source, kinds: Collection[StructureKind], *, taken: Collection[StructureKind] = WHOLE_BLOCK_KINDS
) -> None:
    """Raise if the engine of a `target`, which loads models without parts of the kinds `taken`, cannot load the model of `source`, whose checkpoint
    has `files`, without parts of these `kinds`.

    Raises:
        UserError: only whole blocks go, or what is left of one that is gone would add a bias.
        ModelError: its blocks are not attention and a feed-forward part, all alike, or its configuration says more of them than is known.
    """
    other = next((kind for kind in kinds if kind not in taken), "")
    if other:
        raise UserError(
            f"{target.name} loads models with fewer {', '.join(taken)}, and none with fewer {other}: choose --structure {','.join(taken)}, "
            "or --target llama.cpp."
        )
    whole = whole_structure(source)
    require_unbiased(source)
    require_droppable(source, kinds)
    files.without(range(1, whole.n_layers))
    if "experts" in kinds:
        files.with_experts([of_block[: source.n_experts_used] for of_block in whole.experts])
