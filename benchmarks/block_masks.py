"""Compare masks of single weights, of blocks (oBERT) and of groups (GQSA) at equal bytes: output errors of layers on held-out text, over bits alone.

A mask has one bit for every `m` neighbouring weights of a row, which are kept or pruned together, so that fewer bits of mask leave more weights:

    sparsegpt       m = 1, masks chosen with error feedback: what `_S` formats have, at the share that comes to the same bytes
    obs, 1          m = 1, all at once by w² / [H⁻¹]_ii, of the original weights
    obert, 4 / 16   the error that pruning a block Q leaves if all other weights make up for it, w_Qᵀ ([H⁻¹]_QQ)⁻¹ w_Q (Kurtic et al., EMNLP 2022)
    gqsa, 16        the sum of w² / [H⁻¹]_ii² over a group (Zeng et al., 2024)

Every row keeps equally many blocks. Kept weights are refitted by least squares, rounded with error feedback and clipping, and their levels refitted,
as `gptq+clip+refit` does; so are those of bits alone. Geometric means over matrices of tr(ΔW M ΔWᵀ), M the held-out text's second moments.

    python benchmarks/block_masks.py MODEL --calibration valid.txt --held-out test.txt --blocks 2,15 --bits 2.5,3.5
"""

from collections.abc import Callable, Iterator

import numpy as np
from channel_scales import Matrix
from layers import layers_of, parser_of_layers
from numpy.typing import NDArray
from sparse_codecs import BLOCK, DAMPING, error, spread

from bitwright.compress import Floats, grid_values, rounding_named
from bitwright.compress.codecs.grid import MinimumGrid
from bitwright.compress.codecs.rounding.clipping import clipped
from bitwright.compress.codecs.rounding.gptq import Gptq, as_stored
from bitwright.compress.codecs.rounding.least_squares import refitted_levels, refitted_weights
from bitwright.compress.codecs.rounding.pruning import Mask, Pruned, first_ranks
from bitwright.compress.codecs.rounding.sparse_gpt import pruned_with_feedback
from bitwright.spaces.sparse_format import PrunedShare

GROUP, SCALES = 64, 32  # weights with a scale and a minimum, and the bits of both
WIDTHS = (3, 4)
Inverse = NDArray[np.float64]


def obert(weights: Floats, inverse: Inverse, m: int) -> Floats:
    """Error of pruning each block of `m` weights with all others making up for it, `(n_rows, n_blocks)`."""
    n_blocks = weights.shape[1] // m
    own = np.linalg.inv(inverse.reshape(n_blocks, m, n_blocks, m)[np.arange(n_blocks), :, np.arange(n_blocks)])
    blocks = weights.reshape(len(weights), n_blocks, m)
    return np.einsum("rbi,bij,rbj->rb", blocks, own, blocks).astype(np.float32)


def gqsa(weights: Floats, inverse: Inverse, m: int) -> Floats:
    """Sum of w² / [H⁻¹]_ii² over each group of `m` weights, `(n_rows, n_blocks)`."""
    return ((weights / inverse.diagonal()) ** 2).reshape(len(weights), -1, m).sum(axis=2).astype(np.float32)


SCORES: dict[str, tuple[Callable[[Floats, Inverse, int], Floats], int]] = {
    "obs, 1": (obert, 1), "obert, 4": (obert, 4), "obert, 16": (obert, 16), "gqsa, 16": (gqsa, 16),
}  # fmt: skip


def share_kept(bits: float, width: int, m: int) -> float:
    """Share of weights that may be kept in codes of a width, so that they and a bit for every `m` weights take `bits` bits per weight."""
    return (bits - 1 / m) / (width + SCALES / GROUP)


def masks(matrix: Matrix, gptq: Gptq, bits: float, width: int) -> Iterator[tuple[str, Pruned]]:
    """Every way's name, and its mask and weights."""
    weights, moments = matrix.weights, matrix.calibration.astype(np.float64)
    inverse = np.linalg.inv(moments / moments.diagonal().mean() + DAMPING * np.eye(len(moments)))
    pattern = PrunedShare(round(100_000 * (1 - share_kept(bits, width, 1))))
    yield "sparsegpt", pruned_with_feedback(gptq.feedback(weights, as_stored)[0], pattern, block=BLOCK)
    for name, (score, m) in SCORES.items():
        n_kept = int(share_kept(bits, width, m) * (weights.shape[1] // m))
        kept: Mask = np.repeat(first_ranks(score(weights, inverse, m), np.full(len(weights), n_kept)), m, axis=1)
        yield name, Pruned(kept, weights)


def errors(matrix: Matrix, bits: float, width: int) -> dict[str, float]:
    """Errors of every way on held-out text, over those of bits alone."""
    gptq, grid = Gptq({"": matrix.calibration[None]}, place=clipped, damping=DAMPING, block=BLOCK), MinimumGrid(width)
    moments, fewer = matrix.calibration.astype(np.float64), MinimumGrid(int(bits))
    importance = np.ascontiguousarray(moments.diagonal(), dtype=np.float32)
    alone = rounding_named("gptq+clip+refit", gptq.moments).rounded(matrix.weights, fewer, group=GROUP, importance=importance)
    base = error(grid_values(alone, fewer, GROUP) - matrix.weights, matrix.held_out)
    found = {}
    for name, start in masks(matrix, gptq, bits, width):
        refitted = refitted_weights(matrix.weights, start, moments, damping=DAMPING)
        codes = gptq.rounded_kept(refitted, grid, group=GROUP)
        levels = refitted_levels(codes, matrix.weights, start.mask, grid, group=GROUP, moments=moments)
        found[name] = error(spread(levels, start.mask, grid, GROUP) - matrix.weights, matrix.held_out) / base
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_layers(__doc__)
    parser.add_argument("--bits", default="2.5,3.5", help="bits per weight, those of integers in groups of 64 (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="of each matrix (default: %(default)s)")
    args = parser.parse_args()
    matrices = [each for each in layers_of(args, args.rows).values() if each.weights.shape[1] % 16 == 0]
    print(f"{len(matrices)} matrices, over bits alone\n| bits | codes kept | sparsegpt | {' | '.join(SCORES)} |\n|{'---|' * (3 + len(SCORES))}")
    for bits in (float(bits) for bits in args.bits.split(",")):
        for width in WIDTHS:
            if width > int(bits):
                found = [list(errors(matrix, bits, width).values()) for matrix in matrices]
                means = np.exp(np.log(found).mean(axis=0))
                print(f"| {bits:g} | {width} bits | {' | '.join(f'{mean:.3f}' for mean in means)} |", flush=True)


if __name__ == "__main__":
    main()
