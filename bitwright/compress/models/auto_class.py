"""Class of transformers that loads a language model, alone or together with the parts of other modalities."""

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM, PreTrainedConfig

from bitwright.errors import ModelError, shown

_AUTO: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM)


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the auto class of a configuration: the one whose class it names under `architectures`, else the first that knows it.

    Raises:
        ModelError: none knows it, so that there is no causal language model in it.
    """
    known = [auto for auto in _AUTO if type(config) in auto._model_mapping]
    if not known:
        raise ModelError(
            f"MODEL must be a causal language model that transformers can load, or hold one; '{shown(config.model_type)}' is none: give a model that "
            "generates text."
        )
    named = [auto for auto in known if _class_name(auto, config) in (config.architectures or ())]
    return (named or known)[0]


def _class_name(auto: Any, config: PreTrainedConfig) -> str:
    found = auto._model_mapping[type(config)]
    return str((found[0] if isinstance(found, tuple) else found).__name__)
