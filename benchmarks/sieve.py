"""Compare what taking parts away costs with the influence by which deep models' parts are sieved (`bitwright.pipeline.searching.sieved_parts`).

Of every block the attention, half of the channels and the whole block are taken away, one at a time, from the model in its original weights, and
the divergence is measured on the calibration text. For each kind: Spearman's correlation of divergence and influence over the blocks, the rank by
influence of the part that costs the least and the worst rank of the four and the eight cheapest, and the divergence of the cheapest that the sieve
leaves out beside that of the eighth.

    python benchmarks/sieve.py MODEL --calibration TEXT --sequences 4 --out FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitwright.compress import applied, narrowed_weights, whole_structure
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.pipeline import Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.price_table import subject_of
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.searching.sieved_parts import least_influential
from bitwright.predictors import part_influences
from bitwright.progress import Silent
from bitwright.spaces import Structure, StructureKind, channel_step

KINDS: tuple[StructureKind, ...] = ("attention", "channels", "layers")


def without(whole: Structure, kind: StructureKind, i: int) -> Structure:
    """Return the structure without a part of block i, of its channels without half."""
    groups, channels = list(whole.head_groups), list(whole.channels)
    step = channel_step(channels[i])
    if kind != "channels":
        groups[i] = 0
    if kind != "attention":
        channels[i] = 0 if kind == "layers" else channels[i] // 2 // step * step
    return Structure(tuple(groups), tuple(channels), whole.experts)


def measured(loaded: LoadedRun) -> NDArray[np.float64]:
    """Return the divergence without each part `(n_blocks, n_kinds)`."""
    model, whole = loaded.model, whole_structure(loaded.model.source)
    reference = Reference(model, loaded.texts.calibration, scratch=loaded.folder, progress=Silent())
    found = np.zeros((whole.n_layers, len(KINDS)))
    for i in range(whole.n_layers):
        for column, kind in enumerate(KINDS):
            with applied(model, narrowed_weights(model, {}, without(whole, kind, i))):
                found[i, column] = reference.measure(model, [KullbackLeibler()]).mean()
    return found


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    settings = Settings(said.model, calibration=said.calibration, n_calibration=said.sequences, n_held_out=2, sequence_length=said.length)
    loaded = set_up(settings, said.out, device="cpu", progress=Silent())
    influences, nats = part_influences(subject_of(loaded, whole_space(loaded))), measured(loaded)
    tried = least_influential(influences)
    print("| kind | Spearman | rank of the cheapest | worst of 4 | of 8 | cheapest left out | eighth | blocks |\n" + 8 * "|---" + "|")
    for column, kind in enumerate(KINDS):
        by_price, place = np.argsort(nats[:, column]), np.argsort(np.argsort(influences[:, column]))
        ranks = 1 + place[by_price]
        left_out = np.delete(nats[:, column], list(tried[kind])).min()
        correlation = spearmanr(influences[:, column], nats[:, column]).statistic
        print(
            f"| {kind} | {correlation:.2f} | {ranks[0]} | {ranks[:4].max()} | {ranks[:8].max()} | {left_out:.4f} | "
            f"{np.sort(nats[:, column])[7]:.4f} | {len(nats)} |"
        )


if __name__ == "__main__":
    main()
