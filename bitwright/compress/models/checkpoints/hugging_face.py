"""Transformers checkpoint as a source of engine tensors: the tensors that llama.cpp's converter would write, computed on the fly.

Weight matrices are stored in the narrowest lossless type of BF16, F16 and F32; tensors that the engine never quantizes are F32.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor as Torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bitwright.compress.models.architectures import architecture_of, engine_shape, lay_out
from bitwright.compress.models.gguf.gguf_metadata import hyperparameters
from bitwright.compress.models.gguf.gguf_tokenizer import tokenizer_entries
from bitwright.compress.models.gguf.reader import fingerprint
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.row_source import Rows, RowSource
from bitwright.compress.models.source import NO_SETTINGS, Floats, KeyValue
from bitwright.spaces import Tensor, discover

_ROPE_FACTORS = "rope_freqs.weight"
_FIRST = ("token_embd.weight", "output_norm.weight", "output.weight", _ROPE_FACTORS)  # tensors before the blocks in the file


def rows_in_memory(module: PreTrainedModel) -> Rows:
    """Return a reader of a module's current parameters; do not call it while other weights are swapped in."""
    weights = weights_of(module)
    return lambda piece: piece.to_engine(weights[piece.parameter].detach()).float().cpu()


def tensors_of(module: PreTrainedModel, stored: str) -> tuple[Tensor, ...]:
    """List the engine's tensors of a module in file order, matrices in the format `stored` and all others in F32; weights are not read.

    Raises:
        ModelError: the architecture is not supported.
    """
    pieces, weights = lay_out(module, architecture_of(module.config).name), weights_of(module)
    shapes = {name: engine_shape(of_tensor, weights[of_tensor[0].parameter]) for name, of_tensor in pieces.items()}
    shapes |= {name: values.shape for name, values in _rope_factors(module.config).items()}
    wide = tuple(Tensor(name, shapes[name], "F32") for name in _file_order(shapes))
    matrices = {tensor.name for unit in discover(wide) for tensor in unit.tensors}
    return tuple(replace(tensor, stored=stored) if tensor.name in matrices else tensor for tensor in wide)


def metadata_of(name: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, folder: Path, stored: str) -> tuple[KeyValue, ...]:
    """Build the GGUF metadata of a module and its tokenizer, whose files are in `folder`, with matrices in the format `stored`.

    Raises:
        ModelError: the architecture or the tokenizer is not supported.
    """
    n_tokens = next(tensor.shape[0] for tensor in tensors_of(module, stored) if tensor.name == "token_embd.weight")
    return (
        *hyperparameters(module.config, architecture_of(module.config), name=Path(name).name, stored=stored, n_tokens=n_tokens),
        *tokenizer_entries(tokenizer, module.config, folder=folder, n_tokens=n_tokens),
    )


class HuggingFaceSource(RowSource):
    """Engine tensors of a transformers module, read on demand."""

    def __init__(
        self,
        name: str,
        module: PreTrainedModel,
        rows: Rows,
        *,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        settings: Mapping[str, str] = NO_SETTINGS,
        narrow_type: str = "",
    ) -> None:
        """Take a `module`, which may be on the meta device without weights; the tokenizer's files are in `folder`. The matrices are in `narrow_type`,
        or, where it is empty, are read to find the type that holds them.

        Raises:
            ModelError: the architecture or the tokenizer is not supported.
        """
        architecture = architecture_of(module.config)
        self.name, self.settings = name, settings
        self.architecture = architecture.name
        self._architecture = architecture
        self.folder, self.rows, self.pieces = folder, rows, lay_out(module, architecture.name)
        self._made = _rope_factors(module.config)
        wide = tensors_of(module, "F32")
        matrices = {tensor.name for unit in discover(wide) for tensor in unit.tensors}
        stored = narrow_type or self.narrowest(piece for tensor in wide if tensor.name in matrices for piece in self.pieces[tensor.name])
        self.tensors = tensors_of(module, stored)
        self.metadata = metadata_of(name, module, tokenizer, folder=folder, stored=stored)
        self.fingerprint = fingerprint(self.tensors, self.stored)

    def values(self, tensor: Tensor) -> Torch:
        """Read weights `(n_rows, n_columns)` in a type that has each of them exactly; a vector is one row."""
        if tensor.name in self._made:
            return torch.from_numpy(self._made[tensor.name]).reshape(1, -1)
        rows = self.joined_rows(tensor)
        if self._architecture.norms_plus_one and tensor.name.endswith("norm.weight"):
            rows = rows.float() + 1
        return rows.reshape(-1, tensor.shape[-1])


def _file_order(names: Iterable[str]) -> list[str]:
    """Sort names into file order: tensors outside the blocks first, then block by block, each in the module's order."""
    found = list(names)
    blocks = [name for name in found if name not in _FIRST]
    return [name for name in _FIRST if name in found] + sorted(blocks, key=lambda name: int(name.split(".")[1]))


def _rope_factors(config: PreTrainedConfig) -> dict[str, Floats]:
    """Return the divisors `(head_dim / 2,)` of llama.cpp's rotary frequencies for the RoPE scaling of Llama 3; no tensor for other models."""
    rope = config.to_dict()["rope_parameters"]
    if rope.get("rope_type") != "llama3":
        return {}
    stretched = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0].numpy()  # (head_dim / 2,)
    exponents = np.arange(len(stretched), dtype=np.float32) / len(stretched)
    factors: Floats = (1 / rope["rope_theta"] ** exponents / stretched).astype(np.float32)
    return {_ROPE_FACTORS: factors}
