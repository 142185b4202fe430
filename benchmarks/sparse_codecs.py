"""Compare ways to prune and round a matrix: output errors of layers on held-out text, over those of masks and codes one after the other.

    wanda           masks by Wanda's score, kept weights rounded to nearest        nowag    the same by NoWag's score (ICLR 2025 workshop)
    apart           SparseGPT's masks, then codes with error feedback
    joint           mask and codes in one pass: a window's mask is chosen from weights that earlier codes have moved too (SparseGPT, section 3.4)
    … refit         masks of either, kept weights refitted by least squares, then codes; this is what `gptq` does
    … levels        and levels refitted to the codes: `gptq+refit`

    python benchmarks/sparse_codecs.py MODEL --calibration valid.txt --held-out test.txt --blocks 2,15

Errors are tr(ΔW M ΔWᵀ) of the held-out text's second moments M; geometric means over the matrices of the named blocks. `cg` compares the refit by
conjugate gradients with a factor for every row.
"""

from collections.abc import Iterator

import numpy as np
from channel_scales import Matrix
from layers import layers_of, parser_of_layers
from numpy.typing import NDArray

from bitwright.compress import Floats, Rounded, RoundToNearest, grid_values
from bitwright.compress.codecs.grid import Grid, MinimumGrid
from bitwright.compress.codecs.rounding.gptq import Gptq, as_stored
from bitwright.compress.codecs.rounding.least_squares import refitted_levels, refitted_weights
from bitwright.compress.codecs.rounding.pruning import Mask, Pruned, by_wanda, first_ranks, gathered, largest, wanda
from bitwright.compress.codecs.rounding.sparse_gpt import kept_in_windows, pruned_with_feedback
from bitwright.spaces import NATIVE_FORMATS, IntegerFormat, NOfM, Pattern, SparseFormat

DAMPING, BLOCK = 0.01, 128


def spread(found: Rounded, mask: Mask, grid: Grid, group: int) -> Floats:
    """Kept weights at their places `(n_rows, n_columns)`."""
    weights = np.zeros(mask.shape, dtype=np.float32)
    weights[mask] = grid_values(found, grid, group).reshape(-1)
    return weights


def joint(gptq: Gptq, weights: Floats, pattern: Pattern, grid: Grid, *, like: Rounded, group: int) -> tuple[Mask, Rounded]:
    """Masks and codes of one pass in the stored order, on the levels of `like`, which the pass of masks alone left."""
    work, _ = gptq.feedback(weights, as_stored)
    n_columns, scale = weights.shape[1], np.reciprocal(work.t.diagonal())
    window = pattern.of if isinstance(pattern, NOfM) else BLOCK
    counts = kept_in_windows(weights, pattern, scale, window)
    mask, codes = np.zeros(weights.shape, dtype=bool), np.zeros(weights.shape, dtype=np.uint8)
    rows, n_kept, last = np.arange(len(weights)), np.zeros(len(weights), dtype=np.int64), like.placement.scale.shape[1] - 1

    def settle(i: int) -> Floats:
        if i % window == 0:
            columns = np.arange(i, min(i + window, n_columns))
            mask[:, columns] = first_ranks(np.abs(work.current(columns) * scale[columns]), counts[:, i // window])
        at = like.placement[rows, np.minimum(n_kept // group, last)]
        found = grid.nearest(work.w[:, i, None], at)
        codes[:, i] = found[:, 0]
        n_kept[:] += mask[:, i]
        level: Floats = grid.values(found, at)[:, 0] * mask[:, i]
        return level

    work.run(settle, BLOCK)
    return mask, Rounded(gathered(codes, mask), like.placement)


def nowag(weights: Floats, pattern: Pattern, importance: Floats) -> Pruned:
    """Masks by NoWag's score: weights over the norms of their columns and then of their rows, times the root of the importance."""
    by_columns = weights / np.maximum(np.linalg.norm(weights, axis=0, keepdims=True), 1e-12)
    normalised = by_columns / np.maximum(np.linalg.norm(by_columns, axis=1, keepdims=True), 1e-12)
    return Pruned(largest(wanda(normalised, importance), pattern), weights)


def exactly(weights: Floats, mask: Mask, moments: NDArray[np.float64]) -> Floats:
    """Kept weights refitted with a factor for every row."""
    h = moments / moments.diagonal().mean() + DAMPING * np.eye(len(moments))
    found = np.zeros_like(weights)
    for i, row in enumerate(weights):
        at = np.flatnonzero(mask[i])
        found[i, at] = np.linalg.solve(h[np.ix_(at, at)], h[at] @ row.astype(np.float64))
    return found


def lanes(matrix: Matrix, form: SparseFormat, base: IntegerFormat) -> Iterator[tuple[str, Floats]]:
    """Every way's name and the weights it stores."""
    weights, grid, group, pattern = matrix.weights, MinimumGrid(base.bits), base.group, form.pattern
    moments, gptq = matrix.calibration.astype(np.float64), Gptq({"": matrix.calibration[None]}, damping=DAMPING, block=BLOCK)
    importance = np.ascontiguousarray(moments.diagonal(), dtype=np.float32)
    for name, pruned in (("wanda", by_wanda(weights, pattern, importance)), ("nowag", nowag(weights, pattern, importance))):
        yield name, spread(RoundToNearest().rounded_kept(pruned, grid, group=group), pruned.mask, grid, group)
    apart = pruned_with_feedback(gptq.feedback(weights, as_stored)[0], pattern, block=BLOCK)
    coded = gptq.rounded_kept(apart, grid, group=group)
    yield "apart", spread(coded, apart.mask, grid, group)
    mask, together = joint(gptq, weights, pattern, grid, like=coded, group=group)
    yield "joint", spread(together, mask, grid, group)
    for name, start in (("apart", apart), ("joint", Pruned(mask, weights)), ("wanda", by_wanda(weights, pattern, importance))):
        refitted = refitted_weights(weights, start, moments, damping=DAMPING)
        found = gptq.rounded_kept(refitted, grid, group=group)
        yield f"{name} refit", spread(found, start.mask, grid, group)
        levels = refitted_levels(found, weights, start.mask, grid, group=group, moments=moments)
        yield f"{name} levels", spread(levels, start.mask, grid, group)
        if name == "apart":
            yield "kept, exact", exactly(weights, start.mask, moments)
            yield "kept, cg", refitted.weights


def error(change: Floats, moments: NDArray[np.float64]) -> float:
    """Return tr(ΔW M ΔWᵀ)."""
    return float(((change.astype(np.float64) @ moments) * change).sum())


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_layers(__doc__)
    parser.add_argument("--formats", default="INT2_2OF4,INT3_2OF4,INT4_4OF8,INT2_1OF4,INT3_S50,INT4_S50,INT3_S75", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=64, help="of each matrix (default: %(default)s)")
    args = parser.parse_args()
    matrices = layers_of(args, args.rows)
    by_name, names_of_lanes = {form.name: form for form in NATIVE_FORMATS}, list[str]()
    for name in args.formats.split(","):
        form = by_name[name]
        if not isinstance(form, SparseFormat) or not isinstance(form.base, IntegerFormat):
            parser.error(f"{name} is no format of kept integers")
        found = []
        for matrix in matrices.values():
            if form.fits(matrix.weights.shape):
                errors = {lane: error(stored - matrix.weights, matrix.held_out) for lane, stored in lanes(matrix, form, form.base)}
                found.append([value / errors["apart"] for value in errors.values()])
                names_of_lanes = names_of_lanes or _headed(list(errors))
        print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in np.exp(np.log(found).mean(axis=0)))} |", flush=True)


def _headed(lanes: list[str]) -> list[str]:
    print(f"| format | {' | '.join(lanes)} |\n|{'---|' * (1 + len(lanes))}")
    return lanes


if __name__ == "__main__":
    main()
