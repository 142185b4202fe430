"""View of a model as its transformers module: one tensor for each parameter, under the module's own name.

See `module_tensors.py` for what the tensors are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor as Torch
from transformers import PreTrainedConfig, PreTrainedModel

from bitwright.compress.models.gguf.gguf_rows import GgufRows
from bitwright.compress.models.gguf.reader import fingerprint
from bitwright.compress.models.headers import Headers, Outline
from bitwright.compress.models.modules.direct_reads import direct_reads, sentence_of
from bitwright.compress.models.modules.initialised_layers import initialised_sentence, overwritten
from bitwright.compress.models.modules.module_tensors import module_tensors
from bitwright.compress.models.modules.structure import EMBEDDING, ROUTER
from bitwright.compress.models.opening import Checkpoint, FolderCheckpoint
from bitwright.compress.models.row_source import Rows, RowSource
from bitwright.compress.models.source import NO_SETTINGS
from bitwright.compress.models.view import Bound, View, outline_of
from bitwright.errors import ModelError
from bitwright.spaces import Tensor, discover


class ModuleSource(RowSource):
    """Parameters of a transformers module as tensors, read on demand.

    Matrices that can be quantized are stored in the narrowest of BF16, F16 and F32 that loses nothing of any of them, routers in F32, and what else
    stays as it is in the narrowest type of its own.
    """

    metadata = ()

    def __init__(
        self, name: str, module: PreTrainedModel, rows: Rows, *, settings: Mapping[str, str] = NO_SETTINGS, apart: bool = False, narrow_type: str = ""
    ) -> None:
        """Take a `module`, which may be on the meta device without weights, and a reader of its `rows`; see `module_tensors`. The matrices are in
        `narrow_type`, or, where it is empty, are read to find the type that holds them.
        """
        self.name, self.architecture, self.settings = name, str(module.config.model_type), settings
        self.rows, self._config = rows, module.config
        tensors, self.pieces = module_tensors(module, apart=apart)
        matrices = {tensor.name for unit in discover(tensors) for tensor in unit.tensors}
        widest = narrow_type or self.narrowest(piece for name in matrices for piece in self.pieces[name])
        self.tensors = tuple(replace(tensor, stored=widest if tensor.name in matrices else self._type_of(tensor)) for tensor in tensors)
        self.fingerprint = fingerprint(self.tensors, self.stored)

    @property
    def context_length(self) -> int:
        """Context length that the model was made for, in tokens; 0 where it is not known."""
        return context_length_of(self._config)

    @property
    def n_experts_used(self) -> int:
        """Number of routed experts that a token uses."""
        return n_experts_used_of(self._config)

    def values(self, tensor: Tensor) -> Torch:
        """Read weights `(n_rows, n_columns)` in a type of floats that has each of them exactly."""
        return self.joined_rows(tensor).reshape(-1, tensor.shape[-1])

    def _type_of(self, tensor: Tensor) -> str:
        return tensor.stored or ("F32" if tensor.kind == ROUTER else "") or self.narrowest(self.pieces[tensor.name])


@dataclass(frozen=True)
class ModuleView(View):
    """View of the parameters of the transformers module under its own names.

    With `apart`, only matrices that a loader of linear layers unpacks can be quantized; see `module_tensors`.
    """

    apart: bool = False

    def source(self, checkpoint: Checkpoint) -> ModuleSource:
        """Return the tensors of the model in this view, read on demand."""
        narrow = checkpoint.shards.narrow_type if isinstance(checkpoint, FolderCheckpoint) else ""
        return ModuleSource(
            checkpoint.name, checkpoint.skeleton, rows_of(checkpoint), settings=checkpoint.settings, apart=self.apart, narrow_type=narrow
        )

    def headers(self, checkpoint: Checkpoint) -> Outline:
        """Return the headers of the model in this view, without weights.

        Raises:
            ModelError: with `apart`, no matrix can be quantized but the embedding, or transformers overwrites a weight while it loads a packed
                checkpoint.
        """
        widest = "F32" if not isinstance(checkpoint, FolderCheckpoint) or checkpoint.shards.dtypes & {"F32", "F64"} else "BF16"
        tensors, pieces = module_tensors(checkpoint.skeleton, apart=self.apart)
        if self.apart:
            _require_packable(checkpoint, tensors)
        config = checkpoint.skeleton.config
        least, most = (
            Headers(
                checkpoint.name,
                str(config.model_type),
                (),
                tuple(replace(tensor, stored=tensor.stored or ("F32" if tensor.kind == ROUTER else stored)) for tensor in tensors),
                context_length=context_length_of(config),
                n_experts_used=n_experts_used_of(config),
            )
            for stored in ("BF16", widest)
        )
        return outline_of(checkpoint, (least, most), {tensor.name: pieces[tensor.name] for tensor in tensors if _is_matrix(tensor)})

    def bound(self, checkpoint: Checkpoint, module: PreTrainedModel) -> Bound:
        """Bind the matrices of this view to the parameters of `module`, whose weights are not read but by its own forward pass."""
        tensors, pieces = module_tensors(checkpoint.skeleton, apart=self.apart)
        units = [tensor.name for unit in discover(tensors) for tensor in unit.tensors]
        read = () if self.apart else direct_reads(module, units)
        initialised = tuple(tensor.name for tensor in tensors if tensor.initialised)
        found = {tensor.name: pieces[tensor.name] for tensor in tensors if _is_matrix(tensor) and tensor.name not in read}
        return Bound(found, (*([sentence_of(read)] if read else []), *([initialised_sentence(initialised)] if initialised else [])))


MODULE_VIEW, LINEAR_VIEW = ModuleView(), ModuleView(apart=True)


def _is_matrix(tensor: Tensor) -> bool:
    """Return whether a tensor of a module is a matrix or stack of weights, and no table of integers, which has its format from the first."""
    return len(tensor.shape) > 1 and not tensor.stored


def _require_packable(checkpoint: Checkpoint, tensors: Sequence[Tensor]) -> None:
    """Require that a packed checkpoint of a model has something to pack, and loads as it was written.

    Raises:
        ModelError: it does not.
    """
    called = f"{checkpoint.name} ({checkpoint.skeleton.config.model_type})"
    if {unit.kind for unit in discover(tensors)} <= {EMBEDDING}:
        raise ModelError(f"A packed checkpoint needs linear layers that its loader unpacks; {called} has none: choose --target native or llama.cpp.")
    changed = overwritten(checkpoint.skeleton)
    if changed:
        raise ModelError(
            f"A packed checkpoint must load as it was written; of {called} transformers overwrites part of {changed[0]} while it loads one: choose "
            "--target native or llama.cpp."
        )


def rows_of(checkpoint: Checkpoint) -> Rows:
    """Return the reader of the rows of a checkpoint's parameters, as its module has them."""
    return checkpoint.shards.stored_rows if isinstance(checkpoint, FolderCheckpoint) else GgufRows(checkpoint.source, checkpoint.skeleton).rows


def context_length_of(config: PreTrainedConfig) -> int:
    """Return the context length of a configuration in tokens, 0 where it names none."""
    settings = config.get_text_config().to_dict()
    return next((int(settings[key]) for key in ("max_position_embeddings", "n_positions", "max_seq_len") if settings.get(key)), 0)


def n_experts_used_of(config: PreTrainedConfig) -> int:
    """Return the number of routed experts that a token uses, 1 where the configuration names none."""
    settings = config.get_text_config().to_dict()
    keys = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "top_k_experts", "moe_topk")
    found: Any = next((settings[key] for key in keys if settings.get(key)), 1)
    return int(found[0] if isinstance(found, list) else found)
