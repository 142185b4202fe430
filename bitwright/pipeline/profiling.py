"""A profile of this machine, timed in llama.cpp itself on models made on the spot.

One thread decodes, and its processor time is what counts: on an idle machine that is the time which passes, and on a busy one it stays about the
same. A profile of several threads would need the machine to itself, and is not made here.
"""

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import GgmlCodec, TrialModel, TrialShape, trial_matrices, write_trial
from bitwright.objectives import LlamaCpp, Timed, fit_latency
from bitwright.progress import Progress, Silent
from bitwright.spaces import LLAMA_CPP, Latency

DEPTHS = (12, 6)
_TOKENS, _REPEATS, _PROMPT = 8, 5, 200
_EMBEDDING = "token_embd.weight"


@dataclass(frozen=True, eq=False)
class MachineProfile:
    """What was timed: the latency, the seconds for a token of a prompt by format, and the bytes in a second that copying memory moves."""

    latency: Latency
    seconds_per_prompt_token: Mapping[str, float]
    bandwidth_bytes_per_second: float

    def to_toml(self) -> str:
        """As a device for `bitwright fleet`; the context, the sequences and the least speed are for its owner to say."""
        name = platform.processor() or platform.machine()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        rates = "".join(f"{form} = {1e9 * rate:.6g}\n" for form, rate in self.latency.seconds_per_byte.items())
        prompts = "".join(f"# {form} {1 / seconds:.6g}\n" for form, seconds in self.seconds_per_prompt_token.items())
        return (
            f'name = "this machine ({name}), one thread"\nmemory = "{memory}B"\nusable = 0.8\n'
            f"bandwidth_gb_per_second = {self.bandwidth_bytes_per_second / 1e9:.4g}\nreached = 1.0\n"
            f'engine = "{LLAMA_CPP.name}"\nversion = "{LLAMA_CPP.version}"\ncontext = 2048\nsequences = 1\nleast_tokens_per_second = 0\n\n'
            f'[source]\nbandwidth_gb_per_second = "copying of memory, by bitwright profile"\nusable = "an assumption"\n\n'
            f"# prompt tokens in a second, by format, of a model of {DEPTHS[0]} layers of width {TrialShape(1).width}\n{prompts}\n"
            f"[decode]\nseconds_per_step = {self.latency.seconds_per_step:.6g}\n"
            f"relative_error = {self.latency.relative_error:.4g}\n\n[decode.seconds_per_gigabyte]\n{rates}"
        )


def profile_machine(formats: Sequence[str] = (), *, progress: Progress | None = None) -> MachineProfile:
    """Time every format (all of llama.cpp's when none is named) at two depths.

    Raises:
        UserError: a name is no format of llama.cpp.
    """
    names = [LLAMA_CPP.format(name).name for name in formats] or [form.name for form in LLAMA_CPP.formats]
    timed: list[Timed] = []
    prompts: dict[str, float] = {}
    with (progress or Silent()).stage("Timing llama.cpp", len(DEPTHS) * len(names)) as advance, tempfile.TemporaryDirectory() as scratch:
        for depth in DEPTHS:
            source = TrialModel(TrialShape(depth), seed=0)
            for name in names:
                found, seconds = time_trial(source, {tensor.name: name for tensor in trial_matrices(source)}, Path(scratch))
                timed.append(found)
                prompts.setdefault(name, seconds)
                advance(1)
    return MachineProfile(fit_latency(timed), prompts, copying_bandwidth())


def time_trial(source: TrialModel, formats: dict[str, str], scratch: Path) -> tuple[Timed, float]:
    """Time one model with its matrices in `formats`: what a token takes, and seconds for a token of a prompt."""
    path = scratch / "trial.gguf"
    write_trial(path, source, formats, GgmlCodec())
    engine = LlamaCpp(path, n_vocabulary=source.tensors[0].shape[0], n_threads=1)
    engine.seconds_per_token(2)  # pages are read in
    seconds = float(np.median([engine.seconds_per_token(_TOKENS) for _ in range(_REPEATS)]))
    prompt = engine.seconds_per_prompt_token(_PROMPT)
    read: dict[str, int] = {}
    for tensor in trial_matrices(source):
        if tensor.name != _EMBEDDING:
            form = LLAMA_CPP.format(formats[tensor.name])
            read[form.name] = read.get(form.name, 0) + form.size_bytes(tensor.shape)
    return Timed(read, seconds), prompt


def copying_bandwidth(n_bytes: int = 2**27) -> float:
    """Bytes in a second that a copy of `n_bytes`, far more than caches hold, reads and writes, the best of five."""
    there = np.ones(n_bytes // 8)
    here = np.empty_like(there)
    best = min(_copying_seconds(here, there) for _ in range(5))
    return 2 * n_bytes / best


def _copying_seconds(here: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    started = os.times().user + os.times().system
    for _ in range(4):
        np.copyto(here, there)
    return max(os.times().user + os.times().system - started, 1e-3) / 4
