"""Seconds, states and gap of the exact solver and the hull on the space of a small language model, and HiGHS in the same run."""

import argparse
import time
from collections.abc import Callable

import numpy as np

from bitwright.search import Solution, hull, solve, solve_with_rows
from bitwright.spaces import LLAMA_CPP, Space, Tensor, Unit

MATRICES = (("q", 576, 576), ("k", 192, 576), ("v", 192, 576), ("o", 576, 576), ("gate", 1536, 576), ("up", 1536, 576), ("down", 576, 1536))


def model(n_layers: int, n_experts: int, *, blocks_of_256: bool) -> Space:
    """The shapes of SmolLM2-135M; with more experts, each layer repeats its larger matrices."""
    names = [(f"{layer}.{name}.{e}", n, row) for layer in range(n_layers) for name, n, row in MATRICES for e in range(n_experts if n > 575 else 1)]
    shapes = [("token_embd", 49152, 576), *names]
    tensors = (Tensor(name, (n * row // 256, 256) if blocks_of_256 else (n, row), "F16") for name, n, row in shapes)
    units = tuple(Unit(tensor.name, -1, "matrix", (tensor,)) for tensor in tensors)
    return LLAMA_CPP.space(units, menu=(), fixed_bytes=1_800_000, n_weights=sum(unit.n_weights for unit in units))


def divergences(space: Space, seed: int) -> np.ndarray:
    """Losses of about `w * 4**-bits` with noise, `(n_units, n_formats)` nats/token."""
    rng = np.random.default_rng(seed)
    weight = np.exp(rng.normal(0, 1, len(space.units))) * np.sqrt([unit.n_weights for unit in space.units])
    bits = np.array([form.bits_per_weight for form in space.formats])
    return 0.01 * weight[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.3, space.offered.shape))


def timed(answer: Callable[[], Solution], repeats: int) -> tuple[Solution, float]:
    """The answer and the median of the seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        solution = answer()
        seconds.append(time.perf_counter() - began)
    return solution, float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=30, help="blocks of the model (default: %(default)s)")
    parser.add_argument("--experts", type=int, default=1, help="copies of the larger matrices of each block (default: %(default)s)")
    parser.add_argument("--blocks-of-256", action="store_true", help="shape rows so that every unit is offered all 22 formats")
    parser.add_argument("--bits", type=float, nargs="+", default=[4.2, 4.6, 5.0, 5.3, 5.5, 6.0, 7.0, 9.0], help="budgets in bits per weight")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic divergences (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many is printed (default: %(default)s)")
    parser.add_argument("--without-highs", action="store_true", help="leave HiGHS out, which is slow on thousands of units")
    args = parser.parse_args()

    space = model(args.layers, args.experts, blocks_of_256=args.blocks_of_256)
    table = divergences(space, args.seed)
    began = time.perf_counter()
    front = hull(space, table)
    print(f"{len(space.units)} units, {space.offered.sum()} pairs; hull: {len(front.loss)} points in {time.perf_counter() - began:.3f} s")
    print(f"{'MB':>8} {'nats/token':>12} {'states':>8} {'gap':>8} {'seconds':>8} {'HiGHS':>8} {'ratio':>6}")
    for bits in args.bits:
        budget_bits = int(bits * space.n_weights)
        found, seconds = timed(lambda: solve(space, table, budget_bits), args.repeats)  # noqa: B023
        line = f"{budget_bits / 8e6:8.2f} {found.loss:12.6f} {found.n_nodes:8} {found.gap:8.1e} {seconds:8.4f}"
        if not args.without_highs:
            other, highs_seconds = timed(lambda: solve_with_rows(space, table, budget_bits, rows=()), 1)  # noqa: B023
            line += f" {highs_seconds:8.3f} {highs_seconds / seconds:6.1f}" + ("" if np.isclose(other.loss, found.loss, rtol=1e-9) else " DISAGREE")
        print(line)


if __name__ == "__main__":
    main()
