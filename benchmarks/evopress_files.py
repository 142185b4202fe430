"""Read the pruning configurations of EvoPress' repository, print the shares that they prune on the whole, and write them again.

    git clone https://github.com/IST-DASLab/EvoPress && python benchmarks/evopress_files.py EvoPress/pruning_configs

Shapes are those of the five published models; nothing of a model is loaded. `off by` is how many weights more or fewer than the average of the file's
name all matrices lack; `again` says whether what is written is the same levels.
"""

import argparse
from fractions import Fraction
from pathlib import Path

from bitwright.dialects import Module, Modules
from bitwright.dialects.known import DIALECTS
from bitwright.errors import UserError
from bitwright.spaces import share_format

#: widths of the hidden state, of the feed-forward part, and of keys and values
WIDTHS = {
    "Llama-2-7b-hf": (4096, 11008, 4096),
    "Llama-3.1-8B": (4096, 14336, 1024),
    "Meta-Llama-3-8B": (4096, 14336, 1024),
    "Mistral-7B-v0.3": (4096, 14336, 1024),
    "Phi-3-medium-128k-instruct": (5120, 17920, 1280),
}


def modules_of(text: str, widths: tuple[int, int, int]) -> Modules:
    """The modules that the lines of a configuration name."""
    hidden, inner, keys = widths
    shapes = {"q_proj": (hidden, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, hidden)}
    shapes |= {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    shapes |= {"qkv_proj": (hidden + 2 * keys, hidden), "gate_up_proj": (2 * inner, hidden)}
    names = [line.partition(":")[0].strip() for line in text.splitlines()]
    return {f"{name}.weight": Module(name, shapes[name.rpartition(".")[2]], "") for name in names}


def n_pruned(form: str, shape: tuple[int, ...]) -> int:
    """The weights that a matrix of `shape` lacks in a format."""
    made = share_format(form)
    return 0 if made is None else shape[0] * (shape[1] - made.pattern.n_kept(shape[1]))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.glob("*.txt"))
    if not files:
        raise UserError("The folder must have configurations, as files of text; this one has none: name pruning_configs of EvoPress.")
    print("| file | matrices | pruned | off by | again |\n|---|---|---|---|---|")
    for file in files:
        model, _, percent = file.stem.rpartition("_")
        text, dialect = file.read_text(encoding="utf-8"), DIALECTS[f"evopress-{percent}"]
        modules = modules_of(text, WIDTHS[model])
        found = dialect.read(text, modules, {})
        total = sum(module.shape[0] * module.shape[1] for module in modules.values())
        pruned = sum(n_pruned(form, modules[tensor].shape) for tensor, form in found.items())
        again = dialect.read(dialect.write(found, modules), modules, {}) == found
        off = float(pruned - Fraction(int(percent), 100) * total)
        print(f"| {file.stem} | {len(found)} | {pruned / total:.8f} | {off:+,.0f} | {'yes' if again else 'no'} |")


if __name__ == "__main__":
    main()
