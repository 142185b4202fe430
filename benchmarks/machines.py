"""Computed, not measured: where the time of a search of a very large model goes on several machines, by the formulas of docs/machines.md.

usage: python benchmarks/machines.py [--weights 405e9] [--disk 3e9] [--network 12.5e9] [--operations 400e12] [--quantized 400e6] [--workers 1,4,8]

Defaults: 405 billion weights in bfloat16, streamed by every worker from a disk of its own of 3 GB/s; a network of 100 Gbit/s out of the driver's
node; 400 TFLOP/s of each worker's GPU; 400 million weights a second quantized by each node; 64 calibration sequences of 512 tokens; 16 evaluations at
4.5 bits a weight, 8 at a time, in each of which a quarter of the weights has a format that the workers do not have yet.
"""

import argparse

BITS, EVALUATIONS, AT_ONCE, NEW = 4.5, 16, 8, 0.25
TOKENS = 64 * 512
ROWS, FORMATS, FORMAT_BITS = 0.02, 12, 4.5  # the share of rows that prices are made of, formats, and their bits on average


def main() -> None:
    """Print the seconds of each part for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=405e9)
    parser.add_argument("--disk", type=float, default=3e9, help="bytes a second")
    parser.add_argument("--network", type=float, default=12.5e9, help="bytes a second out of the driver's node")
    parser.add_argument("--operations", type=float, default=400e12, help="a second, of one worker")
    parser.add_argument("--quantized", type=float, default=400e6, help="weights a second, of one worker")
    parser.add_argument("--workers", default="1,4,8")
    given = parser.parse_args()
    counts = [int(n) for n in given.workers.split(",")]
    columns = [seconds(given, n) for n in counts]
    print(f"{'computed, minutes':44s}" + "".join(f"{n:>8d}" for n in counts))
    for name in [*columns[0], "together"]:
        print(f"{name:44s}" + "".join(f"{(column[name] if name in column else sum(column.values())) / 60:8.1f}" for column in columns))


def seconds(given: argparse.Namespace, n: int) -> dict[str, float]:
    """The seconds of each part with `n` workers."""
    weights, reading = given.weights, 2 * given.weights / given.disk
    rows, first, new = ROWS * weights * FORMATS * FORMAT_BITS / 8, weights * BITS / 8, EVALUATIONS * NEW * weights * BITS / 8
    rounds, computing = EVALUATIONS / AT_ONCE, 2 * weights * TOKENS / given.operations
    return {
        "quantizing the rows of prices": ROWS * weights * FORMATS / given.quantized / n,
        "sending them to every worker": n * rows / given.network,
        "sweep: two readings, or its operations": max(2 * reading, 3 * computing / n),
        "quantizing what evaluations need": (1 + EVALUATIONS * NEW) * weights / given.quantized / n,
        "sending it to every worker": n * (first + new) / given.network,
        "evaluations: two readings, or operations": max(rounds * reading, EVALUATIONS * computing / n),
    }


if __name__ == "__main__":
    main()
