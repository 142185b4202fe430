"""Compare formats for the channels of a feed-forward part, or pruning them, with formats for whole matrices or experts.

Everything that is decided about has the same bytes in each lane; names are not counted there: a part takes some 200 bytes of them in headers and
configuration whatever its size. That is much of a toy's file and nothing of a real one's, and is printed apart.

    whole           target native: a format for every matrix, and for every expert of a mixture
    with drops      the same where experts may be dropped (of a mixture)
    as they lie     target native-channels: feed-forward parts in four parts of their channels, in the order that the model has them in
    in order        the same after `bitwright order`
    each matrix     in order, with gate, up and down of a part apart (native-channel-matrices)
    pruned          in order, and channels may be pruned
    camera-p, -q    CAMERA's presets on parts of experts in order (of a mixture)

All but the presets by the default method with `--evaluations`; measured on held-out text, paired with whole.

    python benchmarks/channels.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from experts import Lab, budgets, compared, opened
from native_run import code_bits, parser_of, settings_of

from bitwright.pipeline import Settings
from bitwright.pipeline.channel_order import order_channels
from bitwright.spaces import DROP, PRUNE


def ordered(settings: Settings, folder: Path) -> str:
    """The folder of the model with its channels in order, made where it is not there yet."""
    if not folder.exists():
        found = order_channels(
            settings.model, settings.calibration, folder, n_sequences=settings.n_calibration, length=settings.sequence_length, seed=settings.seed
        )
        shares = ", ".join(f"{share:.1%}" for share in found.shares)
        print(f"{found.n_parts} feed-forward parts in order; energy by quarters of their channels: {shares}")
    return str(folder)


def lanes(settings: Settings, out: Path) -> dict[str, tuple[Lab, str]]:
    """The run and the method of each lane."""
    inside = ordered(settings, out / "ordered")
    in_parts = replace(settings, target="native-channels")
    pruning = opened(replace(in_parts, model=inside, structure=("channels",)), out / "pruned")
    found = {
        "whole": (opened(settings, out / "whole"), "auto"),
        "as they lie": (opened(in_parts, out / "as they lie"), "auto"),
        "in order": (opened(replace(in_parts, model=inside), out / "in order"), "auto"),
        "each matrix": (opened(replace(settings, target="native-channel-matrices", model=inside), out / "each matrix"), "auto"),
        "pruned": (pruning, "auto"),
    }
    if any(unit.expert >= 0 for unit in pruning.run.space.units):
        found["with drops"] = (opened(replace(settings, structure=("experts",)), out / "with drops"), "auto")
        found |= {name: (pruning, name) for name in ("camera-p", "camera-q")}
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(__doc__, formats="INT2_G32,INT3_G32,INT4_G32,INT6_G32", skip="token_embd*", budgets="2.25,2.5,3,3.5,4", evaluations=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    labs = lanes(settings, args.out)
    whole = labs["whole"][0]
    fixed = {name: lab.run.space.fixed_bits for name, (lab, _) in labs.items()}
    print(f"bytes that no choice changes: {fixed['whole'] // 8:,} whole, {fixed['pruned'] // 8:,} in parts")
    print("nats/token on held-out text (over whole, and the paired difference from it)")
    for bits, budget in budgets(whole.run, code_bits(args)).items():
        base = whole.held_out(whole.best("auto", budget, args.evaluations))
        print(f"\n{bits:g} bits, {(budget - fixed['whole']) // 8:,} bytes\n  {'whole':<12}{base.nats_per_token:>9.4f}", flush=True)
        for name, (lab, method) in labs.items():
            if name == "whole":
                continue
            choice = lab.best(method, budget - fixed["whole"] + fixed[name], args.evaluations)
            if len(choice):
                print(f"  {name:<12}{compared(lab.held_out(choice), base)}{pruned(lab, choice)}", flush=True)


def pruned(lab: Lab, choice: np.ndarray) -> str:
    """The share of what is decided about that is not there, in words; nothing where all is."""
    space = lab.run.space
    gone = sum(unit.n_weights for unit, f in zip(space.units, choice, strict=True) if space.formats[f] in (DROP, PRUNE))
    return f"  {gone / sum(unit.n_weights for unit in space.units):.0%} gone" if gone else ""


if __name__ == "__main__":
    main()
