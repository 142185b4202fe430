"""Question that every rival is asked, how the bits of its answer are counted, and how the answer is written down.

All scripts beside this file take the same arguments and write the same JSON. A rival decides about the linear layers of the blocks and about nothing
else: embeddings, head, norms and routers keep their weights. Bits are counted as the race counts them, for all alike:

    a row of n weights takes ceil(n · bits / 8) bytes of codes, and 4 bytes (a 16-bit scale and a 16-bit minimum) for each of ceil(n / group) groups

so where a rival's own accounting differs, its target is moved until its map lands at or just below the budget (`closest_map`).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

Layers = dict[str, int]  # the name of a layer (of its parameter, without `.weight`) → bits
Shape = tuple[int, int]  # rows and columns, the matrices of all experts of a layer one below the other
GROUP_BYTES, HALVINGS = 4, 30


@dataclass(frozen=True)
class Question:
    """`tokens` `(n_sequences, length)` int64; `group` is 0 for the whole row; `budgets` are stored bits per weight of `shapes`."""

    folder: Path
    tokens: NDArray[np.int64]
    bits: tuple[int, ...]
    group: int
    budgets: tuple[float, ...]
    seed: int
    out: Path
    shapes: dict[str, Shape]

    def size_bits(self, name: str, bits: int) -> int:
        """Stored bits of a layer, whole bytes for each row."""
        n_rows, n_columns = self.shapes[name]
        n_groups = -(-n_columns // (self.group or n_columns))
        return 8 * n_rows * (-(-n_columns * bits // 8) + GROUP_BYTES * n_groups)

    def stored(self, layers: Mapping[str, int]) -> float:
        """Stored bits per weight of a map over all its layers, or of a part of one."""
        n_weights = sum(self.shapes[name][0] * self.shapes[name][1] for name in layers)
        return sum(self.size_bits(name, bits) for name, bits in layers.items()) / n_weights

    def uniform(self, bits: int) -> Layers:
        """The map that gives all layers the same."""
        return dict.fromkeys(self.shapes, bits)

    def neighbours(self, budget: float) -> tuple[int, int] | None:
        """The highest pair of neighbouring widths of which the lower, given to all layers, keeps the budget; None where none does."""
        pairs = [pair for pair in pairwise(self.bits) if self.stored(self.uniform(pair[0])) <= budget]
        return pairs[-1] if pairs else None

    def batches(self, n_sequences: int) -> list[torch.Tensor]:
        """The tokens in order, `n_sequences` at a time."""
        return list(torch.from_numpy(self.tokens).split(n_sequences))


@dataclass(frozen=True)
class Answer:
    """Answer of a rival, with the tokens of its forward and backward passes and the time that it took."""

    maps: Mapping[float, Layers]
    forward_tokens: int
    backward_tokens: int
    time: Mapping[str, float]
    notes: list[str] = field(default_factory=list)


def ask(description: str | None) -> Question:
    """The question that the command line holds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a Llama or Mixtral model as transformers saves it")
    parser.add_argument("tokens", type=Path, help="calibration tokens: .npy, int64 (n_sequences, length)")
    parser.add_argument("--bits", default="2,3,4,6", help="widths to choose from (default: %(default)s)")
    parser.add_argument("--group", type=int, default=32, help="weights that share a scale; 0: the whole row (default: %(default)s)")
    parser.add_argument("--budgets", default="2.5,3.0,3.5,4.0,5.0", help="stored bits per weight (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    bits = tuple(sorted(int(width) for width in args.bits.split(",")))
    budgets = tuple(float(budget) for budget in args.budgets.split(","))
    return Question(args.folder, np.load(args.tokens), bits, args.group, budgets, args.seed, args.out, _shapes(args.folder))


def load(question: Question) -> PreTrainedModel:
    """The model in float32 with no gradient asked of its weights."""
    model = AutoModelForCausalLM.from_pretrained(question.folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def closest_map(question: Question, budget: float, solve: Callable[[float], Layers | None]) -> Layers | None:
    """The largest map within the budget that halving finds over a rival's own target, from the smallest width to the largest plus its scales.

    `solve` gives the rival's map for a target, or None where it refuses the target as too small.
    """
    low, high = 0.0, max(question.bits) + 32.0
    best: Layers | None = None
    for _ in range(HALVINGS):
        target = (low + high) / 2
        layers = solve(target)
        if layers is not None and question.stored(layers) > budget:
            high = target
            continue
        low = target
        if layers is not None and (best is None or question.stored(layers) > question.stored(best)):
            best = layers
    return best


def write(question: Question, rival: str, package: str, answer: Answer) -> None:
    """The answer as JSON; a budget that no map meets is left out and noted."""
    unmet = [f"no map within {budget:g} stored bits per weight" for budget in question.budgets if budget not in answer.maps]
    found = {
        f"{budget:g}": {"stored_bits_per_weight": question.stored(layers), "layers": {name: layers[name] for name in question.shapes}}
        for budget, layers in answer.maps.items()
    }
    for budget, layers in answer.maps.items():
        if question.stored(layers) > budget:
            raise ValueError(f"{rival} exceeds {budget} bits per weight: {question.stored(layers)}")
    record = {
        "rival": rival,
        "version": version(package),
        "model": str(question.folder),
        "seed": question.seed,
        "bits": question.bits,
        "group": question.group,
        "calibration_tokens": question.tokens.size,
        "forward_tokens": answer.forward_tokens,
        "backward_tokens": answer.backward_tokens,
        **answer.time,
        "notes": answer.notes + unmet,
        "budgets": found,
    }
    question.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Clock:
    """Clock that starts when it is made: seconds on the wall, and of the processor for this process and its children."""

    wall: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=lambda: sum(os.times()[:4]))

    def read(self) -> dict[str, float]:
        """Seconds since the start."""
        return {"seconds": time.perf_counter() - self.wall, "processor_seconds": sum(os.times()[:4]) - self.processor}


def _shapes(folder: Path) -> dict[str, Shape]:
    """The layers that are decided about, in the model's order: every matrix of a block, or stack of its experts, but the router."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    found = {name.removesuffix(".weight"): weight for name, weight in model.named_parameters() if ".layers." in name and weight.dim() > 1}
    return {name: (weight[..., 0].numel(), weight.shape[-1]) for name, weight in found.items() if not name.endswith("mlp.gate")}
