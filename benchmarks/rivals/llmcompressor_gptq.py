"""llm-compressor's GPTQ of the matrices of the blocks on given tokens; its dequantized weights as float32 under the names of transformers.

python benchmarks/rivals/llmcompressor_gptq.py MODEL calibration.npy --bits 3 --group 64 --out FOLDER

Wants llmcompressor 0.14.0.1 and transformers 5.17.0 in an environment of their own. Asymmetric integers; the scales are kept in float32, since the
model is loaded so. `--order` is the modifier's `actorder`; one that is None in the scheme alone would be taken for static.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokens", type=Path, help="calibration tokens: .npy, int64 (n_sequences, length)")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--order", default="static", choices=["static", "none"], help="default: %(default)s, which is its own")
    parser.add_argument("--observer", default="minmax", help="of the weights' ranges: minmax, mse (default: %(default)s, which is its own)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
    tokens = np.load(args.tokens)
    order = None if args.order == "none" else args.order
    weights = QuantizationArgs(num_bits=args.bits, type="int", symmetric=False, strategy="group", group_size=args.group, observer=args.observer)
    recipe = GPTQModifier(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["lm_head"],
        dampening_frac=0.01,
        block_size=128,
        actorder=order,
    )
    data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": np.ones_like(tokens).tolist()})
    oneshot(model=model, dataset=data, recipe=recipe, max_seq_length=tokens.shape[1], num_calibration_samples=len(tokens))
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
            scheme = module.quantization_scheme.weights
            with torch.no_grad():
                rounded = fake_quantize(module.weight, module.weight_scale, module.weight_zero_point, args=scheme)
            found[f"{name}.weight"] = rounded.float().contiguous()
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(found, args.out / "weights.safetensors")


if __name__ == "__main__":
    main()
