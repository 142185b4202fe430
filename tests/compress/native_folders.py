"""Native checkpoints put together by hand, and the module that they must equal: the same model with every weight as the codec decodes it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from bitwright.compress import integer_codec, weights_of
from bitwright.engines.native.config import native_settings
from bitwright.engines.no_engine import INTEGERS
from bitwright.spaces import Format, IntegerFormat

FORMATS = ("INT2_G32", "INT3_G64", "INT4_ROW", "INT5_G128", "INT6_G32", "INT7_G32", "INT8_G64", "BF16")


@dataclass
class Made:
    """The tensors and packed layers of a checkpoint, and how many formats were given so far."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    layers: dict[str, Format] = field(default_factory=dict)
    n_given: int = 0

    def packed(self, layer: str, weights: torch.Tensor) -> torch.Tensor:
        """Pack a layer in the next format: what it decodes to."""
        form = INTEGERS.format(FORMATS[self.n_given % len(FORMATS)])
        self.n_given += 1
        shape = weights.shape[0], weights.shape[1]
        data = integer_codec().encode(np.ascontiguousarray(weights.numpy()), form, np.empty((0, shape[1]), dtype=np.float32))
        if isinstance(form, IntegerFormat):
            self.layers[layer] = form
            self.tensors[f"{layer}.weight"] = torch.from_numpy(data)
        else:
            self.tensors[f"{layer}.weight"] = torch.from_numpy(data).view(torch.bfloat16).view(shape)
        return torch.from_numpy(integer_codec().decode(data, form, shape))


@torch.no_grad()
def write_native(module: PreTrainedModel, folder: Path) -> Made:
    """Write `module` to `folder`, its matrices in all formats by turns, and give it the weights that were written."""
    made = Made()
    for name, weight in weights_of(module).items():
        stem, _, role = name.rpartition(".")
        if weight.dim() == 3:
            halves = {"gate_proj": 0, "up_proj": 1} if role == "gate_up_proj" else {role: 0}
            for expert, matrix in enumerate(weight):
                parts = matrix.chunk(len(halves))
                for part, half in halves.items():
                    parts[half].copy_(made.packed(f"{stem}.{expert}.{part}", parts[half].clone()))
        elif weight.dim() == 2 and not name.endswith("gate.weight"):
            weight.copy_(made.packed(stem, weight.detach().clone()))
        else:
            made.tensors[name] = weight.detach().clone()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(made.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = module.config.to_dict() | {"architectures": [type(module).__name__], "quantization_config": native_settings(made.layers)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made
