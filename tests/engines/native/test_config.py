"""Configuration of a native checkpoint, written and read. Refusals are tested where they are met, in test_native_quantizer."""

import pytest

from bitwright.engines.native.config import native_formats, native_settings
from bitwright.errors import ModelError
from bitwright.spaces import DROP, NATIVE_FORMATS, PRUNE, DroppedExpert
from tests.sentences import sentence


def test_settings_are_a_mirror_pair() -> None:
    layers = {
        f"model.layers.{i}.mlp.up_proj": form
        for i, form in enumerate((*NATIVE_FORMATS, DROP, PRUNE, DroppedExpert(replacement=0), DroppedExpert(replacement=12)))
    }
    assert native_formats(native_settings(layers)) == layers


def test_a_checkpoint_of_another_method_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        native_formats({"quant_method": "gptq", "bits": 4})
    sentence(caught.value, "gptq")
