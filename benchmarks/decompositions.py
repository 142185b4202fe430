"""Compare decompositions of a matrix into fewer numbers: output errors of layers on held-out text, relative to the output's power.

Decompositions have as many numbers as 8 bits each leave within some bits per weight, and none is rounded, which favours them a little:

    integers        codes in groups of 64 of as many bits per weight, by `gptq+clip+refit`
    svd             a pair of low rank, of least error of the weights
    whitened        a pair of least error of the output on the calibration text: what `SVD_r` and the pairs of `*_R` formats are
    cpd             canonical polyadic decomposition of the matrix with rows folded to two axes (Mixed-TD chooses between it and SVD), by alternating
                    least squares from the same whitened matrix. Of a matrix that is not folded it is the SVD
    mpo             two cores with one bond, rows and columns folded to two axes each (CompactifAI), of least error of the weights

    python benchmarks/decompositions.py MODEL --calibration valid.txt --held-out test.txt --blocks 2,15 --bits 2.5,3.5
"""

from math import isqrt

import numpy as np
from channel_scales import Matrix
from layers import layers_of, parser_of_layers
from numpy.typing import NDArray
from sparse_codecs import DAMPING, error

from bitwright.compress import Floats, grid_values, rounding_named
from bitwright.compress.codecs.grid import MinimumGrid

Array = NDArray[np.float64]
LANES = ("integers", "svd", "whitened", "cpd", "mpo")
SWEEPS, GROUP, NUMBER_BITS = 40, 64, 8


def halves(n: int) -> tuple[int, int]:
    """The two factors of `n` that are nearest to each other, the smaller first."""
    small = next(k for k in range(isqrt(n), 0, -1) if n % k == 0)
    return small, n // small


def low_rank(matrix: Array, rank: int) -> Array:
    """The best matrix of that rank."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    found: Array = (left[:, :rank] * values[:rank]) @ right[:rank]
    return found


def products(a: Array, b: Array) -> Array:
    """The products of two factors' columns, `(len(a) len(b), rank)`."""
    found: Array = (a[:, None] * b[None]).reshape(-1, a.shape[1])
    return found


def polyadic(matrix: Array, rank: int) -> Array:
    """A sum of `rank` products of three vectors, rows folded to two axes, by alternating least squares."""
    shape = (*halves(len(matrix)), matrix.shape[1])
    cube, rng = matrix.reshape(shape), np.random.default_rng(0)
    factors = [rng.normal(size=(n, rank)) for n in shape]
    for _ in range(SWEEPS):
        for axis in range(3):
            a, b = (factors[other] for other in range(3) if other != axis)
            unfolded = np.moveaxis(cube, axis, 0).reshape(shape[axis], -1)
            gram = (a.T @ a) * (b.T @ b)
            ridge = 1e-9 * np.trace(gram) / rank * np.eye(rank)
            factors[axis] = np.linalg.solve(gram + ridge, (unfolded @ products(a, b)).T).T
    found: Array = products(factors[0], factors[1]) @ factors[2].T
    return found


def two_cores(matrix: Array, n_numbers: int) -> Array:
    """The nearest sum of Kronecker products of as many numbers."""
    (a, b), (c, d) = halves(matrix.shape[0]), halves(matrix.shape[1])
    folded = matrix.reshape(a, b, c, d).transpose(0, 2, 1, 3).reshape(a * c, b * d)
    found = low_rank(folded, max(1, n_numbers // sum(folded.shape))).reshape(a, c, b, d)
    return found.transpose(0, 2, 1, 3).reshape(matrix.shape)


def integers(matrix: Matrix, width: int) -> Floats:
    """Weights in codes of `width` bits."""
    grid, importance = MinimumGrid(width), np.ascontiguousarray(matrix.calibration.diagonal())
    rounding = rounding_named("gptq+clip+refit", {"": matrix.calibration[None]})
    return grid_values(rounding.rounded(matrix.weights, grid, group=GROUP, importance=importance), grid, GROUP)


def errors(matrix: Matrix, bits: float) -> list[float]:
    """Relative errors of each decomposition, in the order of `LANES`."""
    weights, moments = matrix.weights.astype(np.float64), matrix.calibration.astype(np.float64)
    n_rows, n_columns = weights.shape
    n_numbers = int(bits / NUMBER_BITS * weights.size)
    factor = np.linalg.cholesky(moments / moments.diagonal().mean() + DAMPING * np.eye(n_columns))
    rank = max(1, n_numbers // (n_rows + n_columns))
    white = weights @ factor
    found = (
        integers(matrix, int(bits)).astype(np.float64),
        low_rank(weights, rank),
        np.linalg.solve(factor.T, low_rank(white, rank).T).T,
        np.linalg.solve(factor.T, polyadic(white, max(1, n_numbers // (sum(halves(n_rows)) + n_columns))).T).T,
        two_cores(weights, n_numbers),
    )
    power = error(matrix.weights, matrix.held_out)
    return [error((each - weights).astype(np.float32), matrix.held_out) / power for each in found]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_layers(__doc__)
    parser.add_argument("--bits", default="2.5,3.5", help="bits per weight, those of integers in groups of 64 (default: %(default)s)")
    args = parser.parse_args()
    matrices = layers_of(args)
    print(f"{len(matrices)} matrices\n| bits | {' | '.join(LANES)} | cpd below whitened |\n|{'---|' * (2 + len(LANES))}")
    for bits in (float(bits) for bits in args.bits.split(",")):
        found = np.array([errors(matrix, bits) for matrix in matrices.values()])
        better = int((found[:, LANES.index("cpd")] < found[:, LANES.index("whitened")]).sum())
        means = " | ".join(f"{mean:.4f}" for mean in np.exp(np.log(found).mean(axis=0)))
        print(f"| {bits:g} | {means} | {better} |", flush=True)


if __name__ == "__main__":
    main()
