"""Options of the benchmarks of native checkpoints, and the settings of the run that follows from them."""

import argparse
from pathlib import Path
from typing import Any

from bitwright.pipeline import Settings
from bitwright.spaces import Space


def parser_of(description: str | None, *, formats: str, skip: str, budgets: str, evaluations: int) -> argparse.ArgumentParser:
    """The arguments that they share, with what is the default of each."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text to search on")
    parser.add_argument("--held-out", default="", help="text to judge by (default: a part of the calibration text)")
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--formats", default=formats, help="default: %(default)s")
    parser.add_argument("--skip", default=skip, help="tensors to leave unquantized, as patterns (default: %(default)s)")
    parser.add_argument("--budgets", default=budgets, help="bits of a code (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=evaluations, help="of the default method (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--held-out-sequences", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser


def settings_of(args: argparse.Namespace, **other: Any) -> Settings:
    """The settings of a run for target native."""
    return Settings(
        args.model, "native", tuple(args.formats.split(",")), args.calibration, args.held_out, n_calibration=args.sequences,
        n_held_out=args.held_out_sequences, sequence_length=args.length, seed=args.seed, skip=tuple(filter(None, args.skip.split(","))), **other,
    )  # fmt: skip


def budget_of(space: Space, bits: float) -> int:
    """The bits of the file with `bits` for each weight that is decided about, in whole bytes."""
    return space.fixed_bits + int(bits * sum(unit.n_weights for unit in space.units)) // 8 * 8


def code_bits(args: argparse.Namespace) -> list[float]:
    """The budgets in bits of a code."""
    return [float(bits) for bits in args.budgets.split(",")]
