"""Time the strategies that solve a table, and bound their gap: on the space of a language model, and on a thousand to a million units.

    python benchmarks/solvers.py --native-7b --without-highs --repeats 1 --bits 1.5 2 3 4     # masks, n of m and low rank beside bits

Without `--units`: seconds, states and gap of the exact solver and the hull on the shapes of a small language model, and HiGHS in the same run.
With `--units`: every strategy on rows of matrices in eight formats, each case in a fresh process, with its peak memory and its gap to the bound.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from bitwright.engines import LLAMA_CPP, NATIVE
from bitwright.search import Solution, demote, hull, promote, solve, solve_in_buckets, solve_lagrangian, solve_with_rows
from bitwright.spaces import NATIVE_FORMATS, BlockFormat, Space, Tensor, Unit

MATRICES = (("q", 576, 576), ("k", 192, 576), ("v", 192, 576), ("o", 576, 576), ("gate", 1536, 576), ("up", 1536, 576), ("down", 576, 1536))


def model(n_layers: int, n_experts: int, *, blocks_of_256: bool) -> Space:
    """The shapes of SmolLM2-135M; with more experts, each layer repeats its larger matrices."""
    names = [(f"{layer}.{name}.{e}", n, row) for layer in range(n_layers) for name, n, row in MATRICES for e in range(n_experts if n > 575 else 1)]
    shapes = [("token_embd", 49152, 576), *names]
    tensors = (Tensor(name, (n * row // 256, 256) if blocks_of_256 else (n, row), "F16") for name, n, row in shapes)
    units = tuple(Unit(tensor.name, -1, "matrix", (tensor,)) for tensor in tensors)
    return LLAMA_CPP.space(units, menu=(), fixed_bytes=1_800_000, n_weights=sum(unit.n_weights for unit in units))


def seven_billion() -> Space:
    """The shapes of a Llama of 7 billion weights, each matrix in any of the formats of native: integers, masks, n of m, one bit, low rank."""
    width, hidden = 4096, 11008
    matrices = [(name, width, width) for name in "qkvo"] + [("gate", hidden, width), ("up", hidden, width), ("down", width, hidden)]
    shapes = [("token_embd", 32000, width), ("output", 32000, width), *((f"{i}.{name}", n, row) for i in range(32) for name, n, row in matrices)]
    units = tuple(Unit(name, -1, "matrix", (Tensor(name, (n, row), "BF16"),)) for name, n, row in shapes)
    menu = tuple(form.name for form in NATIVE_FORMATS)
    return NATIVE.space(units, menu=menu, fixed_bytes=1_800_000, n_weights=sum(unit.n_weights for unit in units))


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


# --- a thousand to a million units

Strategy = Callable[[Space, np.ndarray, int], Solution]

# strategies, and the most units that each is tried on
STRATEGIES: dict[str, tuple[Strategy, int]] = {
    "Lagrangian": (solve_lagrangian, 10**6),
    "promotion": (promote, 10**6),
    "demotion": (demote, 10**6),
    "exact": (solve, 10**6),
    "buckets": (solve_in_buckets, 10**4),
    "HiGHS": (lambda space, table, budget_bits: solve_with_rows(space, table, budget_bits, rows=()), 10**4),
}
TARGET_UNITS, TARGET_SECONDS, TARGET_BYTES, TARGET_GAP = 10**6, 10.0, 2 * 10**9, 1e-4


def rows_of_matrices(n_units: int, seed: int) -> Space:
    """Rows of five widths, each a unit of its own, in eight formats of blocks of 32 weights with two bytes beside them."""
    rng = np.random.default_rng(seed)
    widths = rng.choice([512, 1024, 2048, 4096, 11008], n_units)
    units = tuple(Unit(f"row.{u}", -1, "row", (Tensor(f"row.{u}", (width,), "F16"),)) for u, width in enumerate(widths.tolist()))
    formats = tuple(BlockFormat(f"INT{b}", 32, 4 * b + 2) for b in (2, 3, 4, 5, 6, 8, 10, 16))
    size_bits = widths[:, None] // 32 * np.array([8 * form.block_bytes for form in formats])
    return Space(units, formats, size_bits, np.ones(size_bits.shape, dtype=np.bool_), 10**6, int(widths.sum()))


def peak_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def case(name: str, n_units: int, *, bits: float, seed: int) -> dict[str, float]:
    """Run one strategy on one instance in this process."""
    space = rows_of_matrices(n_units, seed)
    table, built = divergences(space, seed), peak_bytes()
    began, worked = time.perf_counter(), time.process_time()
    solution = STRATEGIES[name][0](space, table, int(bits * space.n_weights))
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
        "peak_bytes": peak_bytes(),
        "built_bytes": built,
        "gap": solution.gap / solution.loss,
    }


def in_a_fresh_process(name: str, n_units: int, *, bits: float, seed: int, limit_seconds: float) -> dict[str, float]:
    """Run the case in a process of its own with one thread; return nothing if it takes longer than `limit_seconds`, building included."""
    command = [sys.executable, __file__, "--case", name, "--units", str(n_units), "--bits", str(bits), "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit_seconds, env=os.environ | {"OMP_NUM_THREADS": "1"})
    except subprocess.TimeoutExpired:
        return {}
    return json.loads(done.stdout)


def print_growth(units: list[int], *, bits: float, seed: int, limit_seconds: float) -> None:
    """A table of all strategies and numbers of units, the growth of each, and whether the targets are reached."""
    print(f"eight formats, {bits:g} bits per weight; the exponent is of processor seconds, to the row above")
    print(f"{'strategy':>11} {'units':>8} {'seconds':>8} {'cpu':>8} {'exponent':>8} {'peak MB':>8} {'of it to solve':>14} {'gap':>8}")
    for name, (_, most) in STRATEGIES.items():
        before: tuple[int, float] | None = None
        for n_units in [n for n in units if n <= most]:
            found = in_a_fresh_process(name, n_units, bits=bits, seed=seed, limit_seconds=limit_seconds)
            if not found:
                print(f"{name:>11} {n_units:8} more than {limit_seconds:g} s")
                break
            exponent = f"{math.log(found['cpu_seconds'] / before[1]) / math.log(n_units / before[0]):8.2f}" if before else " " * 8
            before = (n_units, found["cpu_seconds"])
            memory = f"{found['peak_bytes'] / 1e6:8.0f} {(found['peak_bytes'] - found['built_bytes']) / 1e6:14.0f}"
            print(f"{name:>11} {n_units:8} {found['seconds']:8.3f} {found['cpu_seconds']:8.3f} {exponent} {memory} {found['gap']:8.1e}", end="")
            print(targets(found) if n_units == TARGET_UNITS else "", flush=True)


def targets(found: dict[str, float]) -> str:
    """Return the targets that a case of a million units misses."""
    limits = {"seconds": TARGET_SECONDS, "peak_bytes": TARGET_BYTES, "gap": TARGET_GAP}
    missed = [name for name, limit in limits.items() if found[name] >= limit]
    return f"  misses {', '.join(missed)}" if missed else "  within 10 s, 2 GB and a gap of 1e-4"


# --- a language model


def print_model(space: Space, *, bits: list[float], seed: int, repeats: int, solvers: tuple[str, ...]) -> None:
    """The exact solver at several budgets, and where `solvers` names it HiGHS."""
    table = divergences(space, seed)
    began = time.perf_counter()
    front = hull(space, table)
    print(f"{len(space.units)} units, {space.offered.sum()} pairs; hull: {len(front.loss)} points in {time.perf_counter() - began:.3f} s")
    print(f"{'MB':>8} {'nats/token':>12} {'states':>8} {'gap':>8} {'seconds':>8} {'HiGHS':>8} {'ratio':>6}")
    for average in bits:
        budget_bits = int(average * space.n_weights)
        found, seconds = timed(lambda: solve(space, table, budget_bits), repeats)  # noqa: B023
        line = f"{budget_bits / 8e6:8.2f} {found.loss:12.6f} {found.n_nodes:8} {found.gap:8.1e} {seconds:8.4f}"
        if "HiGHS" in solvers:
            other, highs_seconds = timed(lambda: solve_with_rows(space, table, budget_bits, rows=()), 1)  # noqa: B023
            line += f" {highs_seconds:8.3f} {highs_seconds / seconds:6.1f}" + ("" if np.isclose(other.loss, found.loss, rtol=1e-9) else " DISAGREE")
        print(line)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", help="numbers of units, such as 1000 10000 100000 1000000, instead of a language model")
    parser.add_argument("--limit-seconds", type=float, default=300.0, help="for each case of --units (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=30, help="blocks of the model (default: %(default)s)")
    parser.add_argument("--experts", type=int, default=1, help="copies of the larger matrices of each block (default: %(default)s)")
    parser.add_argument("--native-7b", action="store_true", help="shapes of 7 billion weights, in all formats of native")
    parser.add_argument("--blocks-of-256", action="store_true", help="shape rows so that every unit is offered all 22 formats")
    parser.add_argument("--bits", type=float, nargs="+", default=[4.2, 4.6, 5.0, 5.3, 5.5, 6.0, 7.0, 9.0], help="budgets in bits per weight")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic divergences (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many is printed (default: %(default)s)")
    parser.add_argument("--without-highs", action="store_true", help="leave HiGHS out, which is slow on thousands of units")
    parser.add_argument("--case", choices=STRATEGIES, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.case:
        print(json.dumps(case(args.case, args.units[0], bits=args.bits[0], seed=args.seed)))
    elif args.units:
        print_growth(sorted(args.units), bits=args.bits[0], seed=args.seed, limit_seconds=args.limit_seconds)
    else:
        space = seven_billion() if args.native_7b else model(args.layers, args.experts, blocks_of_256=args.blocks_of_256)
        print_model(space, bits=args.bits, seed=args.seed, repeats=args.repeats, solvers=() if args.without_highs else ("HiGHS",))


if __name__ == "__main__":
    main()
