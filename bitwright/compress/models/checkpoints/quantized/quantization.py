"""Quantization of a checkpoint: its method by the configuration, and the weights that its tensors stand for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.compress.models.checkpoints.configuration_file import quantization_in
from bitwright.compress.models.checkpoints.quantized.awq import awq_weights
from bitwright.compress.models.checkpoints.quantized.bitsandbytes import bitsandbytes_weights
from bitwright.compress.models.checkpoints.quantized.compressed_tensors import compressed_tensors_weights
from bitwright.compress.models.checkpoints.quantized.float8 import float8_weights
from bitwright.compress.models.checkpoints.quantized.gptq import gptq_weights
from bitwright.compress.models.checkpoints.quantized.hqq import hqq_weights
from bitwright.compress.models.checkpoints.quantized.model_optimizer import model_optimizer_weights
from bitwright.compress.models.checkpoints.quantized.mxfp4 import mxfp4_weights
from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored
from bitwright.compress.models.checkpoints.safetensors_file import StoredTensor
from bitwright.errors import ModelError, shown
from bitwright.spaces import small_json

_KEYS = ("quantization_config", "compression_config")
MODEL_OPTIMIZER_FILE = "hf_quant_config.json"
_MODEL_OPTIMIZER, _AUTO_ROUND, _BITSANDBYTES, _COMPRESSED = "modelopt", "auto-round", "bitsandbytes", "compressed-tensors"
#: yields the weights of a checkpoint by its settings, its tensors, and the type of its model's weights
_Reader = Callable[[Mapping[str, Any], Stored, str], Iterable[PackedWeight]]
_READERS: dict[str, _Reader] = {
    "gptq": gptq_weights,
    "awq": awq_weights,
    _COMPRESSED: compressed_tensors_weights,
    "fp8": float8_weights,
    "mxfp8": float8_weights,
    "fbgemm_fp8": float8_weights,
    _MODEL_OPTIMIZER: model_optimizer_weights,
    _BITSANDBYTES: bitsandbytes_weights,
    "mxfp4": mxfp4_weights,
    "hqq": hqq_weights,
}
#: last parts of the names of tensors that say how activations or the KV cache are quantized, and nothing of a weight
_ACTIVATIONS = frozenset(
    (
        "input_scale",
        "input_global_scale",
        "input_zero_point",
        "input_scale_ub",
        "output_scale",
        "activation_scale",
        "qscale_act",
        "k_scale",
        "v_scale",
    )
)
_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True)
class Quantization:
    """Quantization of a checkpoint: its `method`, empty where the weights are floats, the `settings` of its configuration, and the `dtype` of its
    model's weights.
    """

    method: str
    settings: Mapping[str, Any]
    dtype: str

    def read(self, stored: Stored) -> dict[str, StoredTensor | PackedWeight]:
        """Return the weights by name, quantized ones in place of their tensors; how their inputs are quantized is left out.

        Raises:
            ModelError: the tensors of a weight are missing or do not fit each other.
            LibraryError: the package that reads them is not installed.
        """
        if not self.method:
            return dict(stored)
        packed = {weight.name: weight for weight in _READERS[self.method](self.settings, stored, self.dtype)}
        taken = {id(part) for weight in packed.values() for part in weight.parts.values()}
        floats = {name: tensor for name, tensor in stored.items() if id(tensor) not in taken and name.rpartition(".")[2] not in _ACTIVATIONS}
        return floats | packed

    def sentence(self, read: Iterable[StoredTensor | PackedWeight]) -> str:
        """Return the clause about the model as a source: the bits of its weights and the method; empty where they are floats."""
        bits = sorted({weight.bits for weight in read if isinstance(weight, PackedWeight)})
        if not bits:
            return ""
        return f"{bits[0]}-bit weights ({self.method})" if len(bits) == 1 else f"{bits[0]}- to {bits[-1]}-bit weights ({self.method})"


NO_QUANTIZATION = Quantization("", {}, "BF16")


def quantization_of_model(config: Mapping[str, Any], folder: Path) -> Quantization:
    """Return the quantization of the model in `folder`, whose configuration is `config`.

    Raises:
        ModelError: it is malformed, or its method cannot be read here.
    """
    settings = _settings(config, folder)
    method = str(settings.get("quant_method") or (_BITSANDBYTES if settings.get("load_in_4bit") or settings.get("load_in_8bit") else "")).lower()
    layout = str(settings.get("packing_format", ""))
    if method.endswith(_AUTO_ROUND):
        method = next((known for known in ("gptq", "awq") if known in layout), f"{_AUTO_ROUND}, {layout}")
        settings = {key: value for key, value in settings.items() if key != "format"}
    if settings and method not in _READERS:
        named = shown(method) if method else "in a way that its configuration does not name"
        raise ModelError(
            f"MODEL must be one whose weights are floats or quantized by a method that is read here ({', '.join(_READERS)}), or a GGUF file; "
            f"{folder} was quantized already ({named}): give the model that it was made from."
        )
    said = {key: value for inner in (config.get("text_config"), config) if isinstance(inner, dict) for key, value in inner.items()}
    return Quantization(method, settings, _TYPES.get(str(said.get("dtype") or said.get("torch_dtype")), "BF16"))


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what says that its weights are quantized."""
    kept = {key: value for key, value in config.items() if key not in _KEYS}
    return {key: without_quantization(value) if key == "text_config" and isinstance(value, dict) else value for key, value in kept.items()}


def _settings(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the configuration says of its quantization, or else ModelOpt's own file; empty where the weights are floats."""
    text = config.get("text_config")
    for inner in (config, text if isinstance(text, dict) else {}):
        for key in _KEYS:
            found = quantization_in({"quantization_config": inner.get(key)}, folder)
            if found:
                return found if key != _KEYS[1] else {"quant_method": _COMPRESSED, **found}
    path = folder / MODEL_OPTIMIZER_FILE
    if not path.is_file():
        return {}
    try:
        said = small_json(path)
        algorithm = said["quantization"]["quant_algo"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"A model's {MODEL_OPTIMIZER_FILE} must name its quant_algo; that of {folder} does not ({shown(error, 100)}): download the model again."
        ) from error
    return {"quant_method": _MODEL_OPTIMIZER, "quant_algo": algorithm}
