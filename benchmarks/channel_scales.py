"""Would a scale moved into a matrix from what feeds it (AWQ) give better GGUF blocks? Output errors of layers on held-out text.

python benchmarks/channel_scales.py MODEL --calibration valid.txt --held-out test.txt --blocks 2,14,27 --formats Q4_0,IQ4_NL,Q4_K,Q2_K

A scale s of each input channel of a matrix moves for nothing from a norm into the matrices after it, from up into down, and from v into o: W diag(s)
is quantized, and the inputs are divided by s (Lin et al., "AWQ", MLSys 2024, equation 4). s = E[x²]^(α/2), of mean logarithm 0, is searched as there:
α of the least error on the calibration text among 0, 0.25, 0.5, 0.75 and 1, by the codec itself. The scales of o are shared by the heads that share a
v, those of q by k and v, and those of gate by up; the rows of v and up divided by s are quantized alike but for the rounding of their own scales.

Errors are tr(ΔW M ΔWᵀ) of the held-out text's second moments M, relative to those of libggml with the importance matrix; geometric means over the
named blocks. Lanes: ggml and obs without a scale, and with one.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from second_moments import moments_of
from two_texts import add_texts, two_texts

from bitwright.compress import Codec, Floats, GgmlCodec, GgmlErrorFeedback, Model, load
from bitwright.objectives import Tokens
from bitwright.spaces import GGML_BY_NAME, BlockFormat

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: what feeds the matrices, and the matrices that share its scales
GROUPS = {
    "norm → q, k, v": ("attn_q", "attn_k", "attn_v"),
    "v → o": ("attn_output",),
    "norm → gate, up": ("ffn_gate", "ffn_up"),
    "up → down": ("ffn_down",),
}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Some rows of a matrix `(n_rows, n_columns)`, and the second moments of its inputs `(n_columns, n_columns)`, sums over each text's tokens."""

    weights: Floats
    calibration: Floats
    held_out: NDArray[np.float64]
    n_tokens: int

    def changes(self, codec: str, form: BlockFormat, scales: Floats) -> Floats:
        """Return what quantizing does to the weights if their columns are scaled first."""
        moments = self.calibration / np.outer(scales, scales)
        importance = np.ascontiguousarray(moments.diagonal()[None] / self.n_tokens, dtype=np.float32)
        quantizer: Codec = GgmlCodec() if codec == "ggml" else GgmlErrorFeedback({"": moments[None]})
        scaled = np.ascontiguousarray(self.weights * scales)
        decoded: Floats = quantizer.decode(quantizer.encode(scaled, form, importance), form, scaled.shape)
        return decoded / scales - self.weights


def error(change: Floats, moments: NDArray[np.floating]) -> float:
    """Return tr(ΔW M ΔWᵀ)."""
    return float(np.einsum("rc,rc->", change.astype(np.float64) @ moments, change, dtype=np.float64))


def scales_of(matrix: Matrix, alpha: float, *, n_shared: int, width: int) -> Floats:
    """Scales `(n_columns,)` from the energy of the inputs; `n_shared` neighbouring heads of `width` channels have one."""
    energy = matrix.calibration.diagonal().astype(np.float64).reshape(-1, n_shared, width).mean(axis=1, keepdims=True)
    logs = np.log(np.maximum(energy, 1e-6 * energy.mean())) * alpha / 2
    return np.ascontiguousarray(np.broadcast_to(np.exp(logs - logs.mean()), (len(energy), n_shared, width)).reshape(-1), dtype=np.float32)


def errors(matrices: list[Matrix], codec: str, form: BlockFormat, *, n_shared: int, width: int) -> tuple[float, float]:
    """Return the held-out error of the matrices of a group without scales and with those of the best α."""
    found = []
    for alpha in ALPHAS:
        scales = scales_of(matrices[0], alpha, n_shared=n_shared, width=width)
        changes = [matrix.changes(codec, form, scales) for matrix in matrices]
        calibrated = sum(error(change, matrix.calibration) for change, matrix in zip(changes, matrices, strict=True))
        held_out = sum(error(change, matrix.held_out) for change, matrix in zip(changes, matrices, strict=True))
        found.append((calibrated, held_out))
    return found[0][1], min(found)[1]


def matrices_of(model: Model, names: list[str], texts: tuple[Tokens, Tokens], n_rows: int) -> dict[str, Matrix]:
    """Evenly spaced rows of the named matrices, with the moments of both texts."""
    moments: list[Mapping[str, Floats]] = [moments_of(model, names, text) for text in texts]
    found = {}
    for tensor in model.tensors:
        if tensor.name in moments[0]:
            rows = np.linspace(0, tensor.shape[0] - 1, min(n_rows, tensor.shape[0])).astype(np.int64)
            calibration, held_out = (of_text[tensor.name][0] for of_text in moments)
            weights = np.ascontiguousarray(model.source.read(tensor)[rows])
            found[tensor.name] = Matrix(weights, calibration, held_out.astype(np.float64), texts[0].ids.size)
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a dense model, a folder or a GGUF file of weights that were never quantized")
    add_texts(parser)
    parser.add_argument("--blocks", default="0", help="separated by commas (default: %(default)s)")
    parser.add_argument("--formats", default="Q4_0,Q4_1,IQ4_NL,Q4_K,Q2_K", help="separated by commas (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="of each matrix (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=48, help="of each text (default: %(default)s)")
    args = parser.parse_args()
    model = load(args.model)
    calibration, held_out = two_texts(model, args, n_calibration=args.sequences, n_held_out=args.sequences)
    blocks = [int(block) for block in args.blocks.split(",")]
    names = [f"blk.{block}.{role}.weight" for block in blocks for roles in GROUPS.values() for role in roles]
    matrices = matrices_of(model, names, (calibration, held_out), args.rows)
    config = model.module.config.get_text_config()
    repeats = config.num_attention_heads // config.num_key_value_heads
    print("| type | scale | ggml, scaled | obs | obs, scaled |\n|---|---|---|---|---|")
    for form in (GGML_BY_NAME[name] for name in args.formats.split(",")):
        for label, roles in GROUPS.items():
            ratios = []
            for block in blocks:
                group = [matrices[f"blk.{block}.{role}.weight"] for role in roles]
                n_columns = group[0].weights.shape[1]
                if not isinstance(form, BlockFormat) or n_columns % form.block:
                    continue
                n_shared, width = (repeats, n_columns // config.num_attention_heads) if roles == ("attn_output",) else (1, n_columns)
                plain, scaled = errors(group, "ggml", form, n_shared=n_shared, width=width)
                fed_back, both = errors(group, "obs", form, n_shared=n_shared, width=width)
                ratios.append([scaled / plain, fed_back / plain, both / plain])
            if ratios:
                means = np.exp(np.log(ratios).mean(axis=0))
                print(f"| {form.name} | {label} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
