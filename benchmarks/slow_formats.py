"""Slow formats that a bound leaves a chance, against those that the best plan of all formats has, from the prices of a finished run.

    python benchmarks/slow_formats.py RUN

The run must have been priced in all formats (`bitwright search`). First the price of each slow pair over what the closest other format of its unit
makes of it at 6 dB a bit, of which the bound takes half. Then, for several sizes, pairs of slow formats that the bound leaves, those of them in the
best plan, and those in the best plan that the bound would have left out, of which there should be none.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.pipeline.pricing.chances import LEAST, lower_bounds, with_a_chance
from bitwright.pipeline.run import open_run
from bitwright.search import solve

SIZES = 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = open_run(parser.parse_args().run).of_weights
    space, table = replace(run.space, offered=run.space.offered & np.isfinite(run.table)), run.table
    is_slow = np.array([form.is_slow for form in space.formats])
    slow = space.offered & is_slow
    others = space.narrowed(~slow | ~(space.offered & ~slow).any(axis=1, keepdims=True))
    prices = np.where(others.offered, table, 0)
    bounds = lower_bounds(space, others, prices)
    for f in np.flatnonzero(slow.any(axis=0)):
        known = slow[:, f] & (bounds[:, f] > 0)
        ratios = LEAST * table[known, f] / bounds[known, f]
        told = ", ".join(f"{value:.2f}" for value in np.quantile(ratios, [0, 0.5, 1]))
        print(f"{space.formats[f].name:8s} {len(ratios):4d} pairs, price over that of 6 dB a bit: least, median, largest {told}")
    smallest = int(others.total_bits(others.smallest()))
    print(f"{int(slow.sum()):,} slow of {int(space.offered.sum()):,} pairs\n   bpw  left  in the best plan  left out of it")
    for size in SIZES:
        budget_bits = int(size * smallest)
        best = solve(space, np.where(space.offered, table, np.inf), budget_bits).choice
        left = with_a_chance(space, others, prices, least_bits=budget_bits)
        used = is_slow[best]
        lost = used & ~left[np.arange(len(best)), best]
        print(f"{budget_bits / space.n_weights:6.2f} {int((left & slow).sum()):5d} {int(used.sum()):17d} {int(lost.sum()):15d}")


if __name__ == "__main__":
    main()
