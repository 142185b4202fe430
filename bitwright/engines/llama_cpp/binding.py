"""Binding of a GGUF file to the module of the folder that it was made from, and what is required of the two.

Rows are found by their values (`row_matching.py`). A matrix is decided about only if a forward pass is seen to multiply by it, or to look it up, as
the file stores it: llama.cpp splits the up-projection of latent attention by head and transposes one half, which torch multiplies by otherwise.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import gguf
import torch
from torch import Tensor as Torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress import FLOAT_TYPES, Binding, Bound, GgufSource, Model, ParameterSlice, Source, bind_by_rows, weights_of
from bitwright.errors import ModelError
from bitwright.objectives import Tap, Tapped, Use
from bitwright.spaces import Tensor, discover

_UNFOUND_SHARE = 0.05  # of the weights: rotary factors and small parts are below it, an embedding or a kind of layer is above
_SAMPLE, _TOKENS = "The quick brown fox, 42 years old, said: hello.", 64
_SHOWN = 3
_WRAPPER = "language_model."


def bind_file(file: GgufSource, folder: Path, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Bound:
    """Bind the tensors of `file` to the parameters of `module`, which was loaded from `folder`. Where the file rounds weights to its own float type,
    the module gets the rounded ones.

    Raises:
        ModelError: weights of the file are not in the module.
    """
    weights = {name: weight for name, weight in weights_of(module).items() if weight.is_floating_point()}
    hints = _hints(file, weights)
    found = bind_by_rows(file, weights, hints)
    _require_same(file, folder, {tensor: weights[parameter].numel() for tensor, parameter in hints.items()}, found)
    with torch.no_grad():
        for tensor in (tensor for tensor in file.tensors if tensor.name in found.rounded):
            _write(torch.from_numpy(file.read(tensor)), found.pieces[tensor.name], weights)
    seen = _used(Model(module, tokenizer, file, found.pieces))
    pieces = {name: pieces for name, pieces in found.pieces.items() if name in seen}
    return Bound(pieces, _notes(file, found, pieces))


def require_floats(file: GgufSource) -> None:
    """Require that a GGUF file for a folder holds its weights as floats, by its header.

    Raises:
        ModelError: it does not.
    """
    quantized = [tensor for tensor in file.tensors if tensor.stored not in FLOAT_TYPES]
    if _share(quantized, file) > _UNFOUND_SHARE:
        raise _no_floats(quantized[0], file)


def _no_floats(tensor: Tensor, file: GgufSource) -> ModelError:
    return ModelError(
        f"A GGUF file for a folder must hold its weights as floats; {tensor.name} of {file.path} is stored in {tensor.stored}: convert the folder to "
        "F32, F16 or BF16."
    )


def _hints(file: Source, weights: Mapping[str, Torch]) -> dict[str, str]:
    """Map tensors of the file to the parameters that the `gguf` package's table of names gives them; empty for an architecture it does not know."""
    known = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
    if file.architecture not in known:
        return {}
    n_blocks = next((int(entry.value) for entry in file.metadata if entry.key == f"{file.architecture}.block_count"), 0)
    names = gguf.get_tensor_name_map(known[file.architecture], n_blocks)
    hinted = {parameter: names.get_name(parameter.replace(_WRAPPER, ""), try_suffixes=(".weight", ".bias")) for parameter in weights}
    return {tensor: parameter for parameter, tensor in hinted.items() if tensor}


def _require_same(file: GgufSource, folder: Path, hinted: Mapping[str, int], found: Binding) -> None:
    """Require that `file` has the weights of `folder`; `hinted` maps tensors to the number of weights of the parameters that their names hint at."""
    matrices = _matrices(file)
    other = [tensor for tensor in found.unfound if tensor.name in matrices and hinted.get(tensor.name) == tensor.n_weights]
    share = _share(found.unfound, file)
    if not other and share <= _UNFOUND_SHARE:
        return
    first = next((tensor for tensor in found.unfound if tensor.name in matrices), found.unfound[0])
    if first.stored not in FLOAT_TYPES:
        raise _no_floats(first, file)
    raise ModelError(
        f"A GGUF file must hold the weights of the folder; {file.path} and {folder} differ first in {first.name} ({len(found.unfound)} of "
        f"{len(file.tensors)} tensors, {share:.1%} of the weights): give the file that was converted from this folder, or choose another --target."
    )


def _write(rows: Torch, pieces: Iterable[ParameterSlice], weights: Mapping[str, Torch]) -> None:
    start = 0
    for piece in pieces:
        piece.from_engine(weights[piece.parameter], rows[start : start + piece.n_rows])
        start += piece.n_rows


class _Used(Tap):
    """Names of the tensors that are multiplied by or looked up."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        self.names |= {use.tensor for use in uses}

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        self.names |= {use.tensor for use in uses}


@torch.inference_mode()
def _used(model: Model) -> set[str]:
    """Return the tensors of which a forward pass over a short text is seen to use some rows."""
    n_tokens = int(model.module.config.get_text_config().to_dict()["vocab_size"])
    ids = torch.tensor([model.tokenizer(_SAMPLE)["input_ids"][:_TOKENS]]).clamp(max=n_tokens - 1)
    used = _Used()
    with Tapped(model, used):
        model.module(ids, use_cache=False)
    return used.names


def _notes(file: Source, found: Binding, pieces: Mapping[str, object]) -> tuple[str, ...]:
    """Say which matrices stay as they are, and why."""
    matrices, copies, unfound = _matrices(file), {t.name for t in found.copies}, {t.name for t in found.unfound}
    left = [tensor for name, tensor in matrices.items() if name not in pieces]
    reasons = {
        "are not in its module": [tensor for tensor in left if tensor.name in unfound],
        "are a copy of another": [tensor for tensor in left if tensor.name in copies],
        "are used otherwise in its module": [tensor for tensor in left if tensor.name not in unfound | copies],
    }
    return tuple(
        f"Of {file.name}, {len(tensors)} matrices ({_share(tensors, file):.1%} of the weights) stay as they are since they {why}: {_listed(tensors)}."
        for why, tensors in reasons.items()
        if tensors
    )


def _matrices(file: Source) -> dict[str, Tensor]:
    return {tensor.name: tensor for unit in discover(file.tensors) for tensor in unit.tensors}


def _share(tensors: Iterable[Tensor], file: Source) -> float:
    return sum(tensor.n_weights for tensor in tensors) / sum(tensor.n_weights for tensor in file.tensors)


def _listed(tensors: list[Tensor]) -> str:
    more = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    return ", ".join(tensor.name for tensor in tensors[:_SHOWN]) + more
