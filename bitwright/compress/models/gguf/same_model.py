"""Require that transformers makes of a GGUF file the model that llama.cpp runs."""

from transformers import PreTrainedModel

from bitwright.compress.models.architectures import lay_out
from bitwright.compress.models.gguf.gguf_metadata import require_alike
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError

_ROPE_FACTORS = "rope_freqs.weight"  # not a parameter of the module: computed from its configuration


def require_same_tensors(source: Source, module: PreTrainedModel) -> None:
    """Require that the module, which may be without weights, has the settings of the file and a place for each of its tensors, and no other.

    Raises:
        ModelError: the architecture is not supported, or something differs.
    """
    require_alike(module.config, source.metadata, [tensor.name for tensor in source.tensors])
    different = {tensor.name for tensor in source.tensors} - {_ROPE_FACTORS} ^ set(lay_out(module, source.architecture))
    if different:
        raise ModelError(
            f"The module's tensors must be the file's; {', '.join(sorted(different)[:3])} of {source.name} are in one of them alone, so transformers "
            "and llama.cpp would run two different models: give the model in the form of Hugging Face instead."
        )
