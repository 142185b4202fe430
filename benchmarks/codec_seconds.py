"""Time error feedback against libggml's own quantizers: processor seconds per million weights of every block type, and their ratio.

    python benchmarks/codec_seconds.py                                  # a matrix of 576 × 1,536, all types
    python benchmarks/codec_seconds.py --shape 1536,8960 --formats Q4_0,Q4_K --repeats 5

Weights are normal, and inputs are mixed by a random matrix. Each cell is the least of the repeats, the two codecs in turn. Seconds are of
processors, all threads together, so that other work on the machine changes them little. The root of the moments, which a matrix needs
once whatever its type, is in the time of `obs` and printed by itself; it grows with the cube of the columns, and its share falls with the rows.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from bitwright.compress import GgmlCodec, GgmlErrorFeedback
from bitwright.compress.codecs.rounding.feedback import square_root
from bitwright.spaces import GGML_BY_NAME, GGML_FORMATS, BlockFormat

NAME = "blk.0.ffn_down.weight"


def seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds that `work` takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="576,1536", help="rows,columns of the matrix (default: %(default)s)")
    parser.add_argument("--formats", default="", help="of the block types, separated by commas (default: all that fit the matrix)")
    parser.add_argument("--repeats", type=int, default=3, help="of which the least counts (default: %(default)s)")
    args = parser.parse_args()
    n_rows, n_columns = map(int, args.shape.split(","))
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(n_rows, n_columns)).astype(np.float32)
    inputs = (rng.normal(size=(4 * n_columns, n_columns)) @ rng.normal(size=(n_columns, n_columns)) / n_columns**0.5).astype(np.float32)
    moments, importance = (inputs.T @ inputs)[None], (inputs**2).mean(axis=0)[None]
    plain, feedback = GgmlCodec(), GgmlErrorFeedback({NAME: moments}).for_tensor(NAME)
    named = [GGML_BY_NAME[name] for name in args.formats.split(",") if name] or GGML_FORMATS
    million = n_rows * n_columns / 1e6
    of_root = min(seconds(lambda: square_root(moments[0], 0.01)) for _ in range(args.repeats))
    print(f"{n_rows:,} × {n_columns:,}; the root of the moments: {of_root / million:.2f} s per million weights\n")
    print("| type | ggml, s per million | obs, s per million | of ggml's |\n|---|---|---|---|")
    for form in named:
        if not (isinstance(form, BlockFormat) and form.block > 1 and form.fits(weights.shape)):
            continue
        codecs = (plain, feedback)
        plain.encode(weights[:1], form, importance)  # libggml makes the tables of a codebook once
        spent = [[seconds(lambda codec=codec, form=form: codec.encode(weights, form, importance)) for codec in codecs] for _ in range(args.repeats)]
        ggml, obs = (min(column) for column in zip(*spent, strict=True))
        print(f"| {form.name} | {ggml / million:.3f} | {obs / million:.3f} | {obs / ggml:.1f} |", flush=True)


if __name__ == "__main__":
    main()
