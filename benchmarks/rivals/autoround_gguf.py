"""Intel AutoRound's export to GGUF: a file of one of llama.cpp's mixes, or of the types that its AutoScheme gives to layers, with weights rounded by
AutoRound on the calibration tokens of the league.

    python benchmarks/rivals/autoround_gguf.py MODEL L/tokens.npy --mix Q4_K_M --iters 0 --keep L/mixes
    python benchmarks/rivals/autoround_gguf.py MODEL L/tokens.npy --mix Q4_K_M --bits 4.5 --options Q2_K_S,Q3_K_S,Q4_K_S,Q5_K_S,Q6_K --keep L/mixes

Writes `AutoRound MIX.gguf`, or `AutoRound AutoScheme BITS.gguf`, where `--mix` is the format of what AutoScheme does not score. With `--iters 0`
scales are searched with an importance matrix of the tokens and nothing is tuned; `--iters 200` is its default, signed gradient descent on the
rounding of each block (Cheng et al., 2309.05516).
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import numpy as np
from auto_round import AutoRound, AutoScheme
from auto_round.calib_dataset import register_dataset

TEXT = "league"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of transformers")
    parser.add_argument("tokens", type=Path, help="calibration tokens (n_sequences, length), as league.py --ask writes them")
    parser.add_argument("--mix", default="Q4_K_M", help="default: %(default)s")
    parser.add_argument("--bits", type=float, help="of a weight in the mean, for AutoScheme")
    parser.add_argument("--options", default="Q2_K_S,Q3_K_S,Q4_K_S,Q5_K_S,Q6_K", help="that AutoScheme chooses from (default: %(default)s)")
    parser.add_argument("--iters", type=int, default=0, help="steps of tuning a block (default: %(default)s)")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the file")
    args = parser.parse_args()
    os.environ.update(AR_DISABLE_DATASET_SUBPROCESS="1")
    tokens, began = np.load(args.tokens, allow_pickle=False), time.process_time()
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in tokens]
    register_dataset(TEXT)(lambda **_: datasets.Dataset.from_list(rows))
    name = args.mix if args.bits is None else f"AutoScheme {args.bits:g}"
    options = tuple(f"gguf:{option.lower()}" for option in args.options.split(","))
    scheme = f"gguf:{args.mix.lower()}"
    if args.bits is not None:  # without its length it scores no sequence shorter than its own, and gives every layer the smallest type
        scheme = AutoScheme(args.bits, options, dataset=TEXT, nsamples=len(tokens), seqlen=tokens.shape[1], batch_size=1, low_gpu_mem_usage=False)
    rounding = AutoRound(
        str(args.model),
        scheme=scheme,
        iters=args.iters,
        dataset=TEXT,
        nsamples=len(tokens),
        seqlen=tokens.shape[1],
        batch_size=1,
        device_map="cpu",
        enable_torch_compile=False,
        low_gpu_mem_usage=False,
    )
    with TemporaryDirectory(dir=args.keep) as folder:
        rounding.quantize_and_save(folder, format=f"gguf:{args.mix.lower()}")
        (made,) = Path(folder).rglob("*.gguf")
        file = made.rename(args.keep / f"AutoRound {name}.gguf")
    print(f"{name}: {file.stat().st_size:,} bytes, {time.process_time() - began:.0f} s of the processor")


if __name__ == "__main__":
    main()
