"""Require that transformers reads from a GGUF file the model that llama.cpp runs."""

import torch
from transformers import PreTrainedModel

from bitwright.compress.models.architectures import lay_out
from bitwright.compress.models.gguf.gguf_metadata import require_alike
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError

_ROPE_FACTORS = "rope_freqs.weight"  # not a parameter of the module: computed from its configuration


def require_same_model(source: Source, module: PreTrainedModel) -> None:
    """Require that settings and weights of the module equal those of the file, one by one.

    Raises:
        ModelError: the architecture is not supported, or something differs.
    """
    require_same_tensors(source, module)
    laid_out, different = lay_out(module, source.architecture), set[str]()
    for tensor in source.tensors:
        if tensor.name in laid_out:
            weights = [weights_of(module)[piece.parameter] for piece in laid_out[tensor.name]]
            rows = torch.cat([piece.to_engine(weight).reshape(-1) for piece, weight in zip(laid_out[tensor.name], weights, strict=True)])
            if not _equal(rows, torch.from_numpy(source.read(tensor)).reshape(-1)):
                different.add(tensor.name)
    _require_none(source, different)


def require_same_tensors(source: Source, module: PreTrainedModel) -> None:
    """Require that the module, which may be without weights, has the settings of the file and a place for each of its tensors, and no other.

    Raises:
        ModelError: the architecture is not supported, or something differs.
    """
    require_alike(module.config, source.metadata, [tensor.name for tensor in source.tensors])
    _require_none(source, {tensor.name for tensor in source.tensors} - {_ROPE_FACTORS} ^ set(lay_out(module, source.architecture)))


def _require_none(source: Source, different: set[str]) -> None:
    if different:
        raise ModelError(
            f"The module's weights must equal the file's; {', '.join(sorted(different)[:3])} of {source.name} differ, so transformers and llama.cpp "
            "would run two different models: give the model in the form of Hugging Face instead."
        )


def _equal(rows: torch.Tensor, stored: torch.Tensor) -> bool:
    """Return whether weights are equal; Gemma's norms are stored with 1 added, which rounds when it is subtracted again."""
    return torch.equal(rows, stored) or bool(torch.isclose(rows + 1, stored, atol=1e-5).all())
