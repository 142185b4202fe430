"""Run this project's sizes, solver, predictors of whole models and priors on published tables of 20 models.

The tables were measured by Thireus, GGUF Tool Suite and its contributors (https://github.com/Thireus/GGUF-Tool-Suite); none is in this repository.
`python -m benchmarks.published_tables FOLDER` prints:

    bytes         tensors whose published size equals ours, and tensors for which another type was written than was asked for
    assignment    sum of damage of the suite's greedy assigner over that of the exact solver, at several budgets
    whole         uniform types of left-out models predicted within a factor of 1.5, from one or two measured types
    prior         Spearman's coefficient of a prior of sensitivities with the measured row of a left-out model, and by how much the logarithms of the
                  row rise with those of the prior, siblings left out

`--write bitwright/predictors/sensitivity/names/published_models.json` makes the table that the package learns `--sensitivity prior` from.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.published_tables.assignment import contest
from benchmarks.published_tables.byte_maps import byte_map
from benchmarks.published_tables.kinship import siblings
from benchmarks.published_tables.left_out import Atlas, Verdict, atlas, chosen_pairs, judged
from benchmarks.published_tables.links import Predictor, coverage, kriging, mean_curve, sum_alone
from benchmarks.published_tables.priors import by_size, learned, prior, without_kinship
from benchmarks.published_tables.tables import MAINLINE, Published, read_tables
from bitwright.errors import UserError
from bitwright.predictors.sensitivity.names.published_models import written

POINTS: tuple[tuple[str, ...], ...] = (("iq4_xs",), ("q3_K",), ("iq4_xs", "iq2_xxs"), ("q6_K", "iq3_xxs"))
PREDICTORS: dict[str, Predictor] = {"mean curve": mean_curve, "coverage": coverage, "kriging": kriging}


def print_bytes(models: tuple[Published, ...], _: int) -> None:
    """Print the comparison of byte maps."""
    print(f"{'model':30}{'tensors':>9}{'equal':>9}{'replaced':>10}{'by rows':>9}")
    for model in models:
        found = byte_map(model)
        print(f"{model.name:30}{found.compared:9,}{found.equal:9,}{found.replaced:10}{found.rows:9}", flush=True)


def print_assignment(models: tuple[Published, ...], n_budgets: int) -> None:
    """Print the contest of solver and greedy assigner."""
    print(f"{'model':30}{'budgets':>8}{'lower':>7}{'higher':>8}{'median ratio':>14}{'largest':>9}")
    for model in models:
        found = contest(model, n_budgets)
        ratios = f"{np.median(found.ratios):14.5f}{found.ratios.max():9.5f}"
        print(f"{model.name:30}{n_budgets:8}{found.n_won:7}{found.n_lost:8}{ratios}", flush=True)


def print_whole(models: tuple[Published, ...], _: int) -> None:
    """Print the predictors of whole models."""
    known = atlas(models)
    print(f"{'predictor':18}{'measured types':18}{'mainline types':^30}{'all types':^23}")
    print(f"{'':36}{'within 1.5':>12}{'median':>8}{'90 %':>8}{'in 90 %':>9}{'within 1.5':>12}{'90 %':>8}")
    print(_line(known, "sum of singles", "none", judged(known, sum_alone, [()] * len(models))))
    for points in POINTS:
        for name, predictor in PREDICTORS.items():
            print(_line(known, name, ", ".join(points), judged(known, predictor, [points] * len(models))), flush=True)
        print(_line(known, "  no siblings", ", ".join(points), judged(known, kriging, [points] * len(models), alone=True)), flush=True)
    pairs = chosen_pairs(known, kriging)
    chosen = judged(known, kriging, pairs)
    print(_line(known, "kriging", "chosen pair", chosen))
    print(_line(known, "  no siblings", "chosen pair", judged(known, kriging, chosen_pairs(known, kriging, alone=True), alone=True)))
    print("\nkriging, chosen pair, by model; the sum of singles over the whole in their type")
    for i, model in enumerate(models):
        ratio = sum(model.singles.values()) / model.whole[model.reference]
        print(f"{model.name:30}{', '.join(pairs[i]):18}{chosen.within_of(i):8.2f}{ratio:9.2f}")


def _line(known: Atlas, name: str, points: str, found: Verdict) -> str:
    is_mainline = np.isin(np.array(known.types)[found.form], MAINLINE)
    mainline = found.among(is_mainline)
    in_90 = f"{mainline.in_90.mean():9.3f}" if mainline.in_90.any() else f"{'':9}"
    figures = f"{mainline.within:12.3f}{mainline.factor(0.5):8.2f}{mainline.factor(0.9):8.2f}{in_90}"
    return f"{name:18}{points:18}{figures}{found.within:12.3f}{found.factor(0.9):8.2f}"


def print_prior(models: tuple[Published, ...], _: int) -> None:
    """Print the rank correlations of the priors."""
    known, alike = tuple(learned(model) for model in models), siblings(models)
    heads = ("prior", "no siblings", "no kinship", "size", "rise, no s.")
    print(f"{'model':30}{'type':10}{'tensors':>8}" + "".join(f"{head:>13}" for head in heads))
    rows = []
    for i, model in enumerate(models):
        guesses = (
            prior(models, i, [], of=known),
            prior(models, i, np.flatnonzero(alike[i]).tolist(), of=known),
            prior(models, i, [], of=tuple(without_kinship(other, known[i]) for other in known)),
            by_size(model),
        )
        measured = np.log(list(model.singles.values()))
        rise = np.polyfit(guesses[1], measured, 1)[0]
        rows.append([*(float(spearmanr(guess, measured)[0]) for guess in guesses), float(rise)])
        print(f"{model.name:30}{model.reference:10}{len(model.singles):8}" + "".join(f"{value:13.3f}" for value in rows[-1]), flush=True)
    for name, statistic in (("median", np.median), ("mean", np.mean), ("lowest", np.min), ("highest", np.max)):
        print(f"{name:48}" + "".join(f"{value:13.3f}" for value in statistic(rows, axis=0)))


PARTS: dict[str, Callable[[tuple[Published, ...], int], None]] = {
    "bytes": print_bytes,
    "assignment": print_assignment,
    "whole": print_whole,
    "prior": print_prior,
}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of tables, a folder for each model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--budgets", type=int, default=12, help="budgets of the assignment (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="write what `--sensitivity prior` is learned of to this file, in place of the parts")
    args = parser.parse_args()
    try:
        models = read_tables(args.folder)
    except UserError as error:
        sys.exit(f"Error: {error}")
    if args.write is not None:
        args.write.write_text(written([learned(model) for model in models]), encoding="utf-8")
        return
    for part in args.parts:
        print(f"--- {part}")
        PARTS[part](models, args.budgets)


if __name__ == "__main__":
    main()
