"""The method of a checkpoint is found wherever a configuration says it."""

from pathlib import Path
from typing import Any

import pytest

from bitwright.compress.models.checkpoints.quantized.quantization import quantization_of_model, without_quantization

GPTQ = {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, ""),
        ({"quantization_config": None}, ""),
        ({"quantization_config": GPTQ}, "gptq"),
        ({"text_config": {"quantization_config": GPTQ}}, "gptq"),
        ({"compression_config": {"format": "pack-quantized"}}, "compressed-tensors"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}}, "gptq"),
    ],
)
def test_the_method(config: dict[str, Any], method: str, tmp_path: Path) -> None:
    assert quantization_of_model(config, tmp_path).method == method


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({}, "BF16"),
        ({"torch_dtype": "float16"}, "F16"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "F32"),
        ({"text_config": {"dtype": "float16"}}, "F16"),
    ],
)
def test_the_type_of_the_weights(config: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    assert quantization_of_model({"quantization_config": GPTQ} | config, tmp_path).dtype == dtype


def test_a_configuration_without_it() -> None:
    config = {"a": 1, "quantization_config": GPTQ, "compression_config": {}, "text_config": {"b": 2, "quantization_config": GPTQ}}
    assert without_quantization(config) == {"a": 1, "text_config": {"b": 2}}
