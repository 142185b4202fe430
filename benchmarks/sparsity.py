"""Compare bits alone with masks, n of m, rank, and mixtures of all of them, at equal bytes of the file.

Every pair of a matrix and a format is priced once, and the same exact solver divides each budget, in bits for each weight that is decided about:

    bits            integers of 1 to 8 bits, every weight stored
    + n of m        these, and n of m weights with their positions
    + masks         these, and a share of each row with a mask of bits
    + low rank      these, and a packed matrix with a pair of low rank, or a pair alone
    all             everything

    bits at bits    the optimum within bits of slopes and curvatures at the first plan instead of the table: prices at the operating point
    all at bits     the same within everything

With `--evaluations`, the default method then searches from the table within bits (a run of its own) and within everything, each with as many. Each
plan is measured on held-out text and paired with that of bits, by sequence. `fit` has the first five among its candidates and searches from them.
`chosen` is the best by every other sequence of that text, with its divergence on the sequences between them: no plan is judged on the text it was
chosen by. Below, what the table's plan of everything chose, by role and by depth.

    python benchmarks/sparsity.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER
    python benchmarks/sparsity.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER --codec gptq --evaluations 100

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from experts import Lab, opened
from native_run import budget_of, code_bits, parser_of, settings_of
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import KullbackLeibler, Measurement, Reference, standard_error
from bitwright.pipeline import Search
from bitwright.pipeline.searching.ask_tell_loop import Meter
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import BlockFormat, Choice, Format, Unit

BITS = ("INT1_G64", "INT2_G128", "INT2_G64", "INT2_G32", "INT3_G64", "INT3_G32", "INT4_G64", "INT5_G64", "INT6_G64")
PATTERNS = ("S25", "4OF8", "2OF4", "S50", "1OF4", "S75")
PAIRS = ("INT1_R8", "INT2_R8", "INT2_R16", "INT3_R8", "SVD_R16", "SVD_R32")
OTHERS = (*(f"INT{bits}_{pattern}" for bits in (2, 3, 4) for pattern in PATTERNS), *PAIRS)
KINDS = ("bits", "n of m", "masks", "low rank")
N_DEPTHS = 3
DAMPING = 2.0  # of curvatures, as in the first step of `auto`


def parser_of_reductions(description: str | None, *, budgets: str, evaluations: int) -> argparse.ArgumentParser:
    """The arguments of benchmarks with the menu of bits and reductions."""
    parser = parser_of(description, formats=",".join((*BITS, *OTHERS)), skip="", budgets=budgets, evaluations=evaluations)
    parser.add_argument("--codec", default="rtn", help="rounding, as in `bitwright fit` (default: %(default)s)")
    return parser


def opened_lab(args: argparse.Namespace) -> Lab:
    """The run with every format of the menu, priced; one thread from here on."""
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    return opened(settings_of(args, codec=args.codec), args.out / "all")


def kind(form: Format) -> str:
    """The kind of a format."""
    return form.reduction or KINDS[0]


def optimum(lab: Lab, kinds: tuple[str, ...], budget_bits: int) -> Choice | None:
    """The exact optimum of the table within formats of some kinds, None where nothing is so small."""
    space = lab.run.space
    try:
        return solve(space.narrowed(np.array([[kind(form) in kinds for form in space.formats]])), lab.run.table, budget_bits).choice
    except UserError:
        return None


def formats_of(lab: Lab, choice: Choice) -> dict[str, Format]:
    """The format of each tensor in a plan."""
    space = lab.run.space
    return {tensor.name: space.formats[f] for unit, f in zip(space.units, choice, strict=True) for tensor in unit.tensors}


def both_references(lab: Lab) -> tuple[Reference, Reference]:
    """The original's predictions on the calibration and the held-out text."""
    bench = lab.bench
    calibration, held_out = (
        Reference(bench.model, text, scratch=bench.folder, progress=Silent()) for text in (bench.texts.calibration, bench.texts.held_out)
    )
    return calibration, held_out


def at_operating_point(lab: Lab, kinds: dict[str, tuple[str, ...]], at: Choice, budget_bits: int) -> dict[str, Choice]:
    """The optima within formats of some kinds, by name, of slopes and damped curvatures at the choice `at`, as the first step of `auto` takes."""
    search, space = Search(method_named("auto"), evaluations=0, objectives=(KullbackLeibler(),)), lab.run.space
    with open_problem(lab.bench, lab.run, search, Meter()) as (problem, _):
        if problem.expand is None:
            return {}
        slopes, curvatures = problem.expand(at)
    offered = {name: np.array([[kind(form) in within for form in space.formats]]) for name, within in kinds.items()}
    return {name: solve(space.narrowed(mask), slopes + DAMPING * curvatures, budget_bits).choice for name, mask in offered.items()}


def against(found: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """Divergences by sequence over those of bits alone, and the paired difference with its standard error."""
    change = found - base
    return f"  ×{found.mean() / base.mean():.3f}  {change.mean():+.4f} ± {standard_error(change):.4f}"


def chosen(measured: dict[str, Measurement], base: str) -> str:
    """The plan that is best by every other sequence, and its divergence on those between them, over that of `base`."""
    name = min(measured, key=lambda name: float(measured[name].by_sequence[::2, 0].mean()))
    found = measured[name].by_sequence[1::2, 0]
    return f"{found.mean():>9.4f} ± {standard_error(found):.4f}{against(found, measured[base].by_sequence[1::2, 0])}  {name}"


def shares(lab: Lab, choice: Choice, part_of: Callable[[Unit], str]) -> list[str]:
    """Lines with the kinds and commonest formats that a plan gives to the weights of each part of the model."""
    weights: dict[str, Counter[str]] = {}
    names: dict[str, Counter[str]] = {}
    for unit, f in zip(lab.run.space.units, choice, strict=True):
        form, part = lab.run.space.formats[f], part_of(unit)
        weights.setdefault(part, Counter())[kind(form)] += unit.n_weights
        names.setdefault(part, Counter())[form.name] += unit.n_weights
    lines = []
    for part, found in sorted(weights.items()):
        each = "  ".join(f"{name} {found[name] / found.total():>4.0%}" for name in KINDS)
        common = ", ".join(f"{name} {n / found.total():.0%}" for name, n in names[part].most_common(4))
        lines.append(f"    {part:<16} {each}   {common}")
    return lines


def depth_of(lab: Lab) -> Callable[[Unit], str]:
    """The function that says in which third of the blocks a unit is."""
    n_layers = 1 + max(unit.layer for unit in lab.run.space.units)
    return lambda unit: "outside blocks" if unit.layer < 0 else f"third {1 + N_DEPTHS * unit.layer // n_layers}"


def searched(labs: dict[str, Lab], budget_bits: int, n_evaluations: int) -> dict[str, Measurement]:
    """The best that the default method finds in each run, on held-out text."""
    if not n_evaluations:
        return {}
    found = {name: lab.best("auto", budget_bits, n_evaluations) for name, lab in labs.items()}
    return {f"{name}, searched": labs[name].held_out(choice) for name, choice in found.items() if len(choice)}


def compare(labs: dict[str, Lab], bits: float, n_evaluations: int, *, slopes: bool) -> None:
    """Print the comparison at one budget."""
    lab = labs["all"]
    space = lab.run.space
    budget = budget_of(space, bits)
    alone = optimum(lab, KINDS[:1], budget)
    print(f"\n{bits:g} bits, {budget // 8:,} bytes", flush=True)
    lanes = {KINDS[0]: KINDS[:1]} | {f"+ {name}": ("bits", name) for name in KINDS[1:]} | {"all": KINDS}
    choices = {name: found for name, kinds in lanes.items() if (found := optimum(lab, kinds, budget)) is not None}
    if alone is not None and slopes:
        choices |= at_operating_point(lab, {"bits at bits": KINDS[:1], "all at bits": KINDS}, alone, budget)
    measured = {name: lab.held_out(choice) for name, choice in choices.items()} | searched(labs, budget, n_evaluations)
    if alone is None:
        print("  bits alone have no plan this small")
    for name, found in measured.items():
        told = "" if alone is None else against(found.by_sequence[:, 0], measured[KINDS[0]].by_sequence[:, 0])
        print(f"  {name:<16}{found.nats_per_token:>9.4f} ± {found.standard_error:.4f}{told}")
    if alone is not None:
        print(f"  {'chosen':<16}{chosen(measured, KINDS[0])}", flush=True)
    if "all" in choices:
        print("\n".join([*shares(lab, choices["all"], lambda unit: unit.kind), *shares(lab, choices["all"], depth_of(lab))]), flush=True)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_reductions(__doc__, budgets="1.5,2,2.5,3,3.5,4", evaluations=0)
    parser.add_argument(
        "--without-slopes", action="store_true", help="leave out the optima of slopes at the optimum of bits, a sweep for each budget"
    )
    args = parser.parse_args()
    lab = opened_lab(args)
    labs, settings = {"all": lab}, lab.run.settings
    if args.evaluations:
        labs["bits"] = opened(replace(settings, formats=tuple(name for name in settings.formats if name in BITS)), args.out / "bits")
    packed = [form for form in lab.run.space.formats if not isinstance(form, BlockFormat)]
    print(f"{args.model}, {args.codec}, {len(lab.run.space.units)} units, {len(packed)} packed formats; nats/token on held-out text")
    for bits in code_bits(args):
        compare(labs, bits, args.evaluations, slopes=not args.without_slopes)


if __name__ == "__main__":
    main()
