"""Time of a packed linear layer beside the dense one, in several formats: a layer of 576 inputs and 1,536 outputs, of random weights.

    python benchmarks/packed_layers.py
    python benchmarks/packed_layers.py --formats INT4_G64,INT4_2OF4 --repeats 100

Formats are timed by turns on one thread, by its processor time, of which the least counts, so that other work on the machine disturbs little.
`dense / packed` is the speed that is left of the dense layer's, in float32, for 256 tokens at once and for one. The packed layer has exactly the
bytes of its format.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from bitwright.compress import integer_codec
from bitwright.engines import NATIVE
from bitwright.engines.native.packed_modules import PackedLinear, footprint_bytes

SHAPE = (1536, 576)
FORMATS = "INT4_G64,INT4_2OF4,INT4_4OF8,INT4_1OF4,INT4_S50,BF16_2OF4,INT1_G64,INT4_R16,SVD_R64"
TOKENS = (256, 1)


def packed(name: str, weights: np.ndarray) -> PackedLinear:
    """The layer in a format."""
    form = NATIVE.format(name)
    layer = PackedLinear(form, SHAPE, None)
    layer.weight.copy_(torch.from_numpy(integer_codec().encode(weights, form, np.empty((0, SHAPE[1]), dtype=np.float32))))
    return layer


def seconds(run: Callable[[], torch.Tensor]) -> float:
    """Processor time of one run."""
    started = time.thread_time()
    run()
    return time.thread_time() - started


@torch.inference_mode()
def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=FORMATS, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=40, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    dense = torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False)
    dense.weight.copy_(torch.from_numpy(weights))
    layers: dict[str, torch.nn.Module] = {"dense": dense} | {name: packed(name, weights) for name in args.formats.split(",")}
    inputs = [torch.randn(n, SHAPE[1], generator=torch.Generator().manual_seed(n)) for n in TOKENS]
    least = {(name, len(x)): np.inf for name in layers for x in inputs}
    for _ in range(args.repeats):
        for name, layer in layers.items():
            for x in inputs:
                least[name, len(x)] = min(least[name, len(x)], seconds(lambda layer=layer, x=x: layer(x)))  # type: ignore[misc]
    print(f"{'':>10} {'bits/weight':>12}" + "".join(f"{f'ms, {n} tokens':>17} {'dense / packed':>15}" for n in TOKENS))
    for name, layer in layers.items():
        cells = "".join(f"{1e3 * least[name, n]:>17.2f} {least['dense', n] / least[name, n]:>15.2f}" for n in TOKENS)
        print(f"{name:>10} {8 * footprint_bytes(layer) / weights.size:>12.2f}{cells}")


if __name__ == "__main__":
    main()
