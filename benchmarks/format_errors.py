"""Compare native formats by what they cost and lose: bits per weight, and output errors of layers on held-out text, relative to the output's power.

Masks, n of m, pairs of low rank and plain codes beside each other, by the same codec; GPUSQ's are `INT8_2OF4` and `INT4_2OF4`. Geometric means over
the matrices of the named blocks that all formats fit; errors are tr(ΔW M ΔWᵀ) over tr(W M Wᵀ), M the held-out text's second moments. `over bits` is
the error over that of plain codes of as many bits per weight, on the line through the logarithms of the errors of the named ones around it.

    python benchmarks/format_errors.py MODEL --calibration valid.txt --held-out test.txt --blocks 2,15 --codec gptq+clip+refit
"""

import numpy as np
from layers import layers_of, parser_of_layers
from sparse_codecs import error

from bitwright.compress import integer_codec, rounding_named
from bitwright.engines import NATIVE

FORMATS = (
    "INT1_G64,INT2_G64,INT3_G64,INT4_G64,INT5_G64,INT2_2OF4,INT3_2OF4,INT4_2OF4,INT8_2OF4,INT3_S50,INT4_S50,INT4_S25,INT2_R8,INT3_R8,INT4_R8,SVD_R64"
)


def over_bits(found: dict[str, tuple[float, float]], name: str) -> str:
    """The error of a format over that of plain codes of as many bits; empty for those, and where none have more or none have fewer."""
    codes = sorted(each for other, each in found.items() if not NATIVE.format(other).reduction)
    bits, loss = found[name]
    if not NATIVE.format(name).reduction or not codes or not codes[0][0] <= bits <= codes[-1][0]:
        return ""
    sizes, losses = zip(*codes, strict=True)
    return f"{loss / np.exp(np.interp(bits, sizes, np.log(losses))):.2f}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_layers(__doc__)
    parser.add_argument("--formats", default=FORMATS, help="default: %(default)s")
    parser.add_argument("--codec", default="gptq+clip+refit", help="rounding (default: %(default)s)")
    args = parser.parse_args()
    formats = [NATIVE.format(name) for name in args.formats.split(",")]
    matrices = {name: each for name, each in layers_of(args).items() if all(form.fits(each.weights.shape) for form in formats)}
    codec = integer_codec(rounding_named(args.codec, {name: each.calibration[None] for name, each in matrices.items()}))
    n_weights = sum(each.weights.size for each in matrices.values())
    print(f"{len(matrices)} matrices, {args.codec}\n| format | bits per weight | error | over bits |\n|---|---|---|---|")
    found = {}
    for form in formats:
        losses, n_bytes = [], 0
        for name, each in matrices.items():
            importance = np.ascontiguousarray(each.calibration.diagonal()[None] / each.n_tokens, dtype=np.float32)
            packed = codec.for_tensor(name).encode(each.weights, form, importance)
            change = codec.decode(packed, form, each.weights.shape) - each.weights
            losses.append(error(change, each.held_out) / error(each.weights, each.held_out))
            n_bytes += packed.nbytes
        found[form.name] = 8 * n_bytes / n_weights, float(np.exp(np.log(losses).mean()))
    for name, (bits, loss) in sorted(found.items(), key=lambda each: each[1]):
        print(f"| {name} | {bits:.3f} | {loss:.5f} | {over_bits(found, name)} |")


if __name__ == "__main__":
    main()
