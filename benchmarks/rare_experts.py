"""Compare two prices of a rarely chosen expert: by the others of its layer, and by tokens that are sent to it by force.

Of every expert it is known here what it costs, for each token that the router sends there, to store it in a format: measured with the text's own
routing and divided by its tokens. Beside it what each rule says of an expert without seeing any of its tokens:

    floor     the median over the other experts of the layer of the table's price for each of their tokens (`floored_table`)
    forced    the divergence where all tokens of 8 sequences are sent to it (`forced_costs`)

An error is a factor, its median over experts; the Spearman is over experts too. The last column is the factor for the least visited expert alone.

    python benchmarks/rare_experts.py MOE --calibration cal.txt --out FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitwright.objectives import Reference
from bitwright.pipeline import Settings
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.price_table import subject_of
from bitwright.pipeline.pricing.run_space import price
from bitwright.predictors.sensitivity.measured.forced_routing import forced_costs
from bitwright.predictors.sensitivity.text_divergence import one_unit
from bitwright.progress import Silent


def of_others(costs: NDArray[np.float64], layers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each expert the median of `costs` `(n_experts,)` over the others of its layer."""
    units = np.arange(len(costs))
    return np.array([np.median(costs[(layers == layers[u]) & (units != u)]) for u in units])


def told(name: str, found: NDArray[np.float64], true: NDArray[np.float64], rarest: int) -> str:
    """Return how far off the costs `found` are, in a line."""
    logs = np.log(found / true)
    return (
        f"  {name:<8} × {np.exp(np.median(np.abs(logs))):.2f} off, {np.exp(np.median(logs)):.2f} of the true cost, "
        f"Spearman {spearmanr(found, true).statistic:+.3f}; rarest {np.exp(logs[rarest]):.2f}"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of a mixture of experts, never quantized")
    parser.add_argument("--calibration", required=True, help="text, long enough that every expert is visited")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32", help="default: %(default)s")
    parser.add_argument("--skip", default="token_embd*,*attn*", help="tensors to leave unquantized: all but experts (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(
        args.model, "native", tuple(args.formats.split(",")), args.calibration, n_calibration=args.sequences, n_held_out=2,
        sequence_length=args.length, seed=args.seed, skip=tuple(args.skip.split(",")),
    )  # fmt: skip
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    space, tokens, routing = run.space, bench.texts.calibration, bench.routing
    n_chosen = np.array([routing.n_chosen[routing.row_of(unit.layer, unit.expert)] for unit in space.units])
    layers, rarest = np.array([unit.layer for unit in space.units]), int(n_chosen.argmin())
    reference = Reference(bench.model, tokens, scratch=args.out, progress=Silent())
    subject = subject_of(bench, space)
    forced = forced_costs(subject, np.arange(len(space.units)))
    print(f"{len(space.units)} experts; the least visited, {space.units[rarest].name}, saw {n_chosen[rarest]:,} of {tokens.n_tokens:,} tokens")
    for f in np.flatnonzero(space.offered.all(axis=0)):
        per_token = tokens.n_tokens / n_chosen
        true = np.array([one_unit(subject, reference, unit=u, form=int(f)) for u in range(len(space.units))]) * per_token
        print(f"\n{space.formats[f].name}, {np.median(true):.3f} nats for each token that an expert is sent")
        print(told("floor", of_others(run.table[:, f] * per_token, layers), true, rarest))
        print(told("forced", forced[:, f], true, rarest), flush=True)


if __name__ == "__main__":
    main()
