"""Ask every rival that is installed for its map of layers to bits, and write the answers into a folder.

python benchmarks/rivals/run_all.py MODEL TOKENS.npy --out MAPS --python rivals-env/bin/python

Needs nothing but Python: each script runs in the environment whose interpreter `--python` names, with one thread unless told otherwise. A rival that
is not installed there, or that cannot do the model, gets a sentence and is left out. What a script prints goes to a file of its own beside the maps.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rival:
    """A script and the package that it asks."""

    script: str
    package: str


RIVALS = (
    Rival("nncf_mixed", "nncf"),
    Rival("dynquant_map", "dynquant-core"),
    Rival("modelopt_gradient", "nvidia-modelopt"),
    Rival("mlx_dynamic", "mlx-lm"),
    Rival("autoround_scheme", "auto-round"),
)


def installed(python: str, rival: Rival) -> bool:
    """Return whether the environment of `python` has the rival."""
    program = f"from importlib.metadata import version; version('{rival.package}')"
    return not subprocess.run([python, "-c", program], check=False, capture_output=True).returncode


def run(args: argparse.Namespace, rival: Rival) -> str:
    """Ask the rival and return one sentence on what came of it."""
    answer = args.out / f"{rival.script}-{args.seed}.json"
    if answer.exists():
        return f"answered before, in {answer}"
    if not installed(args.python, rival):
        return f"left out: {args.python} has no {rival.package}; install benchmarks/rivals/requirements-maps.txt there"
    options = [f"--{name}={vars(args)[name]}" for name in ("bits", "group", "budgets", "seed") if vars(args)[name] is not None]
    command = [args.python, str(Path(__file__).with_name(f"{rival.script}.py")), str(args.model), str(args.tokens), *options, f"--out={answer}"]
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    preload = {"LD_PRELOAD": str(args.preload.resolve())} if args.preload else {}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NNCF_CI": "1"}
    log = answer.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        failed = subprocess.run(command, check=False, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | threads | preload | quiet).returncode
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"])[-1]
    return f"left out: {last} ({log})" if failed else f"answered, in {answer}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Llama or Mixtral model as transformers saves it")
    parser.add_argument("tokens", type=Path, help="calibration tokens: .npy, int64 (n_sequences, length)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the rivals' environment (default: this one)")
    parser.add_argument("--bits", help="widths to choose from, as 2,3,4,6")
    parser.add_argument("--group", type=int, help="weights that share a scale; 0: the whole row")
    parser.add_argument("--budgets", help="stored bits per weight, as 3.5,4.0")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--preload", type=Path, help="library that goes before the scripts' own, as an OpenBLAS for mlx-lm")
    parser.add_argument("--only", default=",".join(rival.script for rival in RIVALS), help="default: %(default)s")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for rival in RIVALS:
        if rival.script in args.only.split(","):
            print(f"{rival.script}: {run(args, rival)}", flush=True)


if __name__ == "__main__":
    main()
