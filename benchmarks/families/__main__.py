"""Build the families' folders, or run them on every target: see the package."""

import argparse
import sys
from pathlib import Path

import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.families.declared import FAMILIES
from benchmarks.families.family import Family
from benchmarks.families.folders import entropy, write_folder


def build(families: list[Family], folder: Path) -> Table:
    """Write every family into a folder of its own in `folder` and load it again."""
    table = Table("family", "model type", "bytes", "entropy, nats", "loads")
    for family in families:
        write_folder(family, folder / family.name)
        n_bytes = sum(path.stat().st_size for path in (folder / family.name).iterdir())
        try:
            found = [f"{entropy(family, folder / family.name):.2f}", "yes"]
        except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
            found = ["", str(error).strip().splitlines()[0][:90]]
        table.add_row(family.name, family.model_type, f"{n_bytes:,}", *found)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="families; all of them by default")
    parser.add_argument("--build", type=Path, metavar="DIR", help="write the folders into DIR, load each, and say which do")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(FAMILIES):
        sys.exit(f"families must be among {', '.join(FAMILIES)}; not so: {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    Console(width=140).print(build([FAMILIES[name] for name in asked.names or FAMILIES], asked.build))


if __name__ == "__main__":
    main()
