"""Predicted and timed decoding of mixed plans that the latency model has not seen, in the run that fits it.

python benchmarks/latency.py [--formats Q8_0,Q6_K,Q4_K] [--threads 1] [--model MODEL] [--plans PLAN.json,...]

Formats are drawn for each tensor. Plans that are named come after the ten that are drawn, as far as their tensors are among those that are timed.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bitwright.devices import package_energy
from bitwright.engines import LLAMA_CPP
from bitwright.engines.llama_cpp.profiling import parse_threads, profile_machine, time_trial, trials, written_trial
from bitwright.engines.llama_cpp.trial_model import TrialModel, trial_matrices
from bitwright.spaces import Format, read_plan

N_PLANS, N_FORMATS = 10, 6


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default="")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--model", default="")
    parser.add_argument("--plans", default="")
    args = parser.parse_args()
    (n_threads,) = parse_threads(args.threads)
    machine = profile_machine([name for name in args.formats.split(",") if name], (n_threads,), model=args.model)
    (found,) = machine.threads
    print(f"{n_threads} threads, timed on {machine.timed_on} in {machine.seconds:.0f} s at a load of {machine.load:.1f}")
    print("GB/s by format: " + ", ".join(f"{name} {1e-9 / max(rate, 1e-15):.1f}" for name, rate in found.latency.seconds_per_byte.items()))
    print(f"{1e6 * found.latency.seconds_per_step:.0f} µs a token besides; fit {found.latency.relative_error:.1%}")
    print("prompt tokens/s: " + ", ".join(f"{name} {1 / seconds:.0f}" for name, seconds in found.seconds_per_prompt_token.items()))
    source = trials(args.model, seed=1)[0][0]
    rng, menu = np.random.default_rng(1), [LLAMA_CPP.format(name) for name in found.latency.seconds_per_byte]
    cases = {f"drawn {i}": drawn(source, menu, rng) for i in range(N_PLANS)}
    cases |= {Path(path).name: dict(read_plan(Path(path)).formats) for path in args.plans.split(",") if path}
    errors = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, formats in cases.items():
            path = written_trial(source, formats, Path(scratch))
            timed = time_trial(path, source, formats, n_threads=n_threads, energy=package_energy()).timed
            predicted = found.latency.seconds_per_token(timed.read_bytes)
            errors.append(predicted / timed.seconds_per_token - 1)
            print(f"{name}: {timed.seconds_per_token * 1e3:.2f} ms timed, {predicted * 1e3:.2f} ms predicted, {errors[-1]:+.1%}", flush=True)
    print(f"worst of {len(errors)}: {max(map(abs, errors)):.1%}")


def drawn(source: TrialModel, menu: list[Format], rng: np.random.Generator) -> dict[str, str]:
    """A format for each matrix, one of a few of the `menu`, or of all of it where none of the few fits."""
    few = [menu[i] for i in rng.choice(len(menu), size=min(N_FORMATS, len(menu)), replace=False)]
    fitting = {
        t.name: [form.name for form in few if form.fits(t.shape)] or [form.name for form in menu if form.fits(t.shape)]
        for t in trial_matrices(source)
    }
    return {name: str(rng.choice(names)) for name, names in fitting.items()}


if __name__ == "__main__":
    main()
