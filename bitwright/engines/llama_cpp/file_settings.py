"""Settings that a GGUF file and the configuration of its folder both have, which must be the same: torch computes by the one, llama.cpp by the other.

Compared are those that parity before the search may miss, since they change little on its texts.
"""

from collections.abc import Iterator, Mapping
from math import isclose
from typing import Any

from transformers import PreTrainedConfig

from bitwright.compress import GgufSource
from bitwright.errors import ModelError, shown

_ALIKE = 1e-6  # relative: files have numbers in float32
_EPSILONS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
#: key of a configuration → keys of metadata, of which a file has one at most
_SHARED: Mapping[str, tuple[str, ...]] = {
    "rms_norm_eps": _EPSILONS,
    "layer_norm_eps": _EPSILONS,
    "layer_norm_epsilon": _EPSILONS,
    "norm_epsilon": _EPSILONS,
    "norm_eps": _EPSILONS,
    "rope_theta": ("rope.freq_base",),
}


def require_same_settings(file: GgufSource, config: PreTrainedConfig) -> None:
    """Require that a GGUF file has the settings of its folder's configuration, those that both have as one number.

    Raises:
        ModelError: one differs.
    """
    metadata = {entry.key.removeprefix(f"{file.architecture}."): entry.value for entry in file.metadata}
    for name, wanted in _numbers(config):
        for key in _SHARED[name]:
            found = metadata.get(key)
            if isinstance(found, int | float) and not isclose(found, wanted, rel_tol=_ALIKE):
                raise ModelError(
                    f"A GGUF file must be of the same model as its folder; {file.architecture}.{key} of {file.path} is {shown(found)} and {name} of "
                    f"the folder's config.json {shown(wanted)}: give the file that was converted from this folder."
                )


def _numbers(config: PreTrainedConfig) -> Iterator[tuple[str, float]]:
    """Yield the shared settings of a configuration that are a number, and the base of rotary embeddings that are not scaled."""
    said: dict[str, Any] = config.get_text_config().to_dict()
    rope = said.get("rope_parameters")
    said |= rope if isinstance(rope, dict) and rope.get("rope_type") == "default" else {}
    yield from ((name, said[name]) for name in _SHARED if isinstance(said.get(name), int | float))
