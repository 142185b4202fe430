"""Native checkpoints in transformers: importing this module registers their quantization method, so that plain `from_pretrained` loads them, with
their weights packed.

Source: the documented way to add a quantization method, `register_quantization_config` and `register_quantizer` of transformers 5. No code of a
checkpoint is run, and missing tensors are refused before anything is loaded, where transformers would initialise them at random.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from bitwright.compress import StoredTensor, entries, shards
from bitwright.engines.native.config import METHOD, native_formats
from bitwright.engines.native.packed_model import pack
from bitwright.engines.native.packed_modules import PackedLinear


@register_quantization_config(METHOD)
class NativeConfig(QuantizationConfigMixin):
    """`quantization_config` of a native checkpoint, validated when it is read."""

    def __init__(self, **settings: Any) -> None:
        """Take the settings of `config.json`.

        Raises:
            ModelError: see `native_formats`.
        """
        native_formats(settings)
        self.quant_method = METHOD  # type: ignore[assignment]  # theirs lists only what transformers brings itself
        self.schema, self.formats = settings["schema"], dict(settings["formats"])


@register_quantizer(METHOD)
class NativeQuantizer(HfQuantizer):
    """Loader of a native checkpoint into packed layers."""

    quantization_config: NativeConfig

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **settings: Any) -> None:
        formats = native_formats(self.quantization_config.to_dict())
        found: dict[str, StoredTensor] = {}
        for path in settings.get("checkpoint_files") or ():
            found |= entries(Path(path))
        pack(model, formats, found, dtype=model.dtype)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **settings: Any) -> PreTrainedModel:  # noqa: ARG002
        """Cut the bias of a tied head back: transformers pads it to the length of the weight, which counts bytes where it is packed."""
        for layer in model.modules():
            if isinstance(layer, PackedLinear) and layer.bias is not None:
                layer.bias.data = layer.bias.data[: layer.shape[0]].clone()
        return model

    def update_attn_implementation(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Require that a folder is complete. This is the first hook that transformers calls with it, and the last before it opens the shards.

        Raises:
            ModelError: a shard is missing or damaged.
        """
        folder = Path(config.name_or_path or "")
        if config.name_or_path and folder.is_dir():
            for path in shards(folder):
                entries(path)
        return config

    def update_weight_conversions(self, weight_conversions: list[Any], model: PreTrainedModel) -> list[Any]:  # noqa: ARG002
        """Return none: a native checkpoint has the names of the module."""
        return []

    def is_serializable(self) -> bool:
        """Return True: `save_pretrained` writes the packed weights as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Return False: integers have no gradient."""
        return False
