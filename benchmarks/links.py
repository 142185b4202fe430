"""Compare links from the sum of a sensitivity table over a plan to its divergence, on the fronts that runs have measured.

Of each run the measured plans of the front are taken (uniform allocations and what they beat are left out); a link is fitted to some of them and
predicts the others. Printed are, over all runs, each run counting alike, the share predicted within a factor of 1.2 and of 1.5, the factor by which
nine in ten are wrong at most, and the root mean square of the logarithm:

    factor         the geometric mean of measured over summed divergence
    coverage       c · (1 - exp(-s Σ)), of NVIDIA's ModelOpt, by least squares of the logarithms
    stretched      log D = a + b log Σ, by least squares: what the mean curve of published models becomes on one model's own sums
    interpolated   the link of the package

    python benchmarks/links.py RUN RUN ... --known 2 3 4

Nothing is measured: the runs are those of `bitwright search` or `fit` with five or more measured plans on their fronts.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from bitwright.errors import UserError
from bitwright.pipeline.pricing.link import fit_link, measured_front
from bitwright.pipeline.run import open_run

Floats = NDArray[np.float64]
#: logarithms of known sums and divergences `(n,)`, logarithms of the sums asked for `(k,)` -> logarithms of divergences `(k,)`
Predict = Callable[[Floats, Floats, Floats], Floats]
_DRAWS, _FEWEST = 60, 5
_STEEPNESSES = (-12.0, 8.0)  # logarithms of s · Σ between which s is sought


def factor(sums: Floats, nats: Floats, asked: Floats) -> Floats:
    """Predict by one factor."""
    found: Floats = asked + float((nats - sums).mean())
    return found


def stretched(sums: Floats, nats: Floats, asked: Floats) -> Floats:
    """Predict by a line in the logarithms; by one factor where all sums are equal."""
    if np.ptp(sums) == 0:
        return factor(sums, nats, asked)
    slope, level = np.polyfit(sums, nats, 1)
    found: Floats = level + slope * asked
    return found


def coverage(sums: Floats, nats: Floats, asked: Floats) -> Floats:
    """Predict by the saturating link."""
    largest = sums.max()

    def covered(steepness: float, logs: Floats) -> Floats:
        return np.log(-np.expm1(-np.exp(steepness + logs - largest)))

    def missed(steepness: float) -> float:
        return float(np.var(nats - covered(steepness, sums)))

    steepness = float(minimize_scalar(missed, bounds=_STEEPNESSES, method="bounded").x)
    found: Floats = covered(steepness, asked) + float((nats - covered(steepness, sums)).mean())
    return found


def interpolated(sums: Floats, nats: Floats, asked: Floats) -> Floats:
    """Predict by the link of the package."""
    link = fit_link(np.exp(sums).tolist(), np.exp(nats).tolist(), noise=0.0, otherwise=0.0)
    return np.log(link.nats(np.exp(asked)))


LINKS: dict[str, Predict] = {"factor": factor, "coverage": coverage, "stretched": stretched, "interpolated": interpolated}


def errors(front: tuple[Floats, Floats], n_known: int, predict: Predict) -> Floats:
    """Return the errors of the logarithms over random draws of so many known plans of a front."""
    rng, (sums, nats), found = np.random.default_rng(0), front, list[Floats]()
    for _ in range(_DRAWS):
        known = np.sort(rng.choice(len(sums), n_known, replace=False))
        asked = np.setdiff1d(np.arange(len(sums)), known)
        found.append(np.abs(predict(sums[known], nats[known], sums[asked]) - nats[asked]))
    return np.concatenate(found)


def figures(of_runs: list[Floats]) -> str:
    """Return the means over runs."""
    rows = [[np.mean(e <= np.log(1.2)), np.mean(e <= np.log(1.5)), np.exp(np.quantile(e, 0.9)), np.sqrt(np.mean(e**2))] for e in of_runs]
    near, within, ninety, rms = np.mean(rows, axis=0)
    return f"{near:12.0%}{within:12.0%}{ninety:12.2f}{rms:8.3f}"


def read(folder: Path) -> tuple[Floats, Floats]:
    """Read the logarithms of sums and divergences of a run's measured front, both ascending in the sums."""
    run = open_run(folder)
    known = sorted((run.summed(np.array(m.choice)), m.nats_per_token) for m in measured_front(run))
    above = np.log(np.array([pair for pair in known if min(pair) > 0]).reshape(-1, 2))
    return above[:, 0], above[:, 1]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--known", nargs="+", type=int, default=[2, 3, 4], help="numbers of measured plans (default: 2 3 4)")
    args = parser.parse_args()
    fronts = []
    for folder in args.runs:
        try:
            front = read(folder)
        except UserError as error:
            sys.exit(f"Error: {error}")
        factors = " ".join(f"{value:.2f}" for value in np.exp(front[1] - front[0]))
        span = f"{np.exp(front[1].min()):.4f} to {np.exp(front[1].max()):.4f}"
        print(f"{folder}: {len(front[0])} plans on the front, {span}; measured/summed {factors}")
        fronts += [front] if len(front[0]) >= max(_FEWEST, *(n + 1 for n in args.known)) else []
    if not fronts:
        sys.exit(f"Error: A front must have {_FEWEST} measured plans; those of these runs have fewer: search with more --points.")
    print(f"\n{len(fronts)} runs\n{'known':6}{'link':14}{'within 1.2':>12}{'within 1.5':>12}{'nine in ten':>12}{'rms':>8}")
    for n_known in args.known:
        for name, predict in LINKS.items():
            print(f"{n_known:<6}{name:14}{figures([errors(front, n_known, predict) for front in fronts])}")


if __name__ == "__main__":
    main()
