"""Read the drop configurations of EvoPress: the share that each takes away against the number that it is named by, and what llama.cpp loads of it.

    git clone https://github.com/IST-DASLab/EvoPress && python benchmarks/evopress_drops.py EvoPress/drop_configs

`feed-forward alone` are the blocks that lose their feed-forward part and keep their attention, which keep some channels here.
"""

import argparse
from pathlib import Path

from bitwright.methods.published_drops import read_drops

_FEED_FORWARD = "mlp"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| configuration | blocks | share that goes | feed-forward alone |\n|---|---|---|---|")
    files = sorted(folder.rglob("*.txt"))
    drops = {file: read_drops(file) for file in files}
    for file, found in drops.items():
        print(f"| {file.relative_to(folder)} | {len(found.words)} | {float(found.share)} | {found.words.count(_FEED_FORWARD)} |")
    with_some = sum(_FEED_FORWARD in found.words for found in drops.values())
    named = [(file.parent.name, found.share) for file, found in drops.items() if file.parent.name[0].isdecimal()]
    exact = sum(float(name) == float(share) for name, share in named)
    print(f"\n{len(files)} files, {with_some} with a feed-forward part that goes alone; {exact} of {len(named)} shares are those in their names.")


if __name__ == "__main__":
    main()
