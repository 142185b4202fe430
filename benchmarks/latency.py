"""Predicted and timed decoding of mixed plans that the latency model has not seen, in the run that fits it.

python benchmarks/latency.py [Q8_0,Q6_K,Q4_K,...] [threads]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from bitwright.compress import TrialModel, TrialShape, trial_matrices
from bitwright.objectives import package_energy
from bitwright.pipeline import parse_threads, profile_machine
from bitwright.pipeline.profiling import DEPTHS, time_trial, written_trial
from bitwright.spaces import LLAMA_CPP

N_PLANS, N_FORMATS = 10, 6


def main(words: list[str]) -> None:
    names = words[0].split(",") if words else [form.name for form in LLAMA_CPP.formats]
    (n_threads,) = parse_threads(words[1] if len(words) > 1 else "1")
    machine = profile_machine(names, (n_threads,))
    (found,) = machine.threads
    print(f"{n_threads} threads, timed in {machine.seconds:.0f} s at a load of {machine.load:.1f}")
    print("GB/s by format: " + ", ".join(f"{name} {1e-9 / max(rate, 1e-15):.1f}" for name, rate in found.latency.seconds_per_byte.items()))
    print(f"{1e6 * found.latency.seconds_per_step:.0f} µs a token besides; fit {found.latency.relative_error:.1%}")
    print("prompt tokens/s: " + ", ".join(f"{name} {1 / seconds:.0f}" for name, seconds in found.seconds_per_prompt_token.items()))
    rng, errors = np.random.default_rng(1), []
    source = TrialModel(TrialShape(DEPTHS[0]), seed=1)
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(N_PLANS):
            menu = rng.choice(names, size=min(N_FORMATS, len(names)), replace=False)
            formats = {t.name: str(rng.choice(menu)) for t in trial_matrices(source)}
            path = written_trial(source, formats, Path(scratch))
            timed = time_trial(path, source, formats, n_threads=n_threads, energy=package_energy()).timed
            predicted = found.latency.seconds_per_token(timed.read_bytes)
            errors.append(predicted / timed.seconds_per_token - 1)
            print(f"plan {i}: {timed.seconds_per_token * 1e3:.2f} ms timed, {predicted * 1e3:.2f} ms predicted, {errors[-1]:+.1%}", flush=True)
    print(f"worst of {N_PLANS}: {max(map(abs, errors)):.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
