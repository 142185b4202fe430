"""Build the families' folders, or fit them to every target: see the package."""

import argparse
import sys
from pathlib import Path

import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.families.declared import FAMILIES
from benchmarks.families.family import Family
from benchmarks.families.folders import entropy, write_folder
from benchmarks.families.matrix import TARGETS, Kept, run, table

KEPT = "cells.jsonl"


def build(families: list[Family], folder: Path) -> Table:
    """Write every family into a folder of its own in `folder` and load it again."""
    built = Table("family", "model type", "bytes", "entropy, nats", "loads")
    for family in families:
        write_folder(family, folder / family.name)
        n_bytes = sum(path.stat().st_size for path in (folder / family.name).iterdir())
        try:
            found = [f"{entropy(family, folder / family.name):.2f}", "yes"]
        except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
            found = ["", str(error).strip().splitlines()[0][:90]]
        built.add_row(family.name, family.model_type, f"{n_bytes:,}", *found)
    return built


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the families' folders are or will be, and what is kept of each cell")
    parser.add_argument("names", nargs="*", metavar="NAME", help="families; all of them by default")
    parser.add_argument("--build", action="store_true", help="write the folders, load each, and say which do")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given several times; all of them by default")
    parser.add_argument("--converter", type=Path, metavar="DIR", help="llama.cpp, or what it has: convert_hf_to_gguf.py, conversion, gguf-py")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(FAMILIES):
        sys.exit(f"families must be among {', '.join(FAMILIES)}; not so: {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    families = [FAMILIES[name] for name in asked.names or FAMILIES]
    if asked.build:
        Console(width=140).print(build(families, asked.folder))
        return
    for family in families:
        if not (asked.folder / family.name / "model.safetensors").is_file():
            write_folder(family, asked.folder / family.name)
    kept = Kept(asked.folder / KEPT)
    for cell in run(families, asked.target or list(TARGETS), asked.folder, kept, asked.converter):
        print(f"{cell.family} for {cell.target}, {cell.seconds:.0f} s: {cell.sentence or 'works'}", file=sys.stderr, flush=True)
    print(table(families, kept.cells))


if __name__ == "__main__":
    main()
