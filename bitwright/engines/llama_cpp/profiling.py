"""Profile of this machine, timed in llama.cpp on models made on the spot: every format at two depths, on one thread and on all.

The models have Llama's shape, or that of a model which is named: rows of 576 weights take longer a byte than rows of 1,024. A format that not all
rows of such a model can have is timed in those that can, with others in `Q8_0`.

One thread is timed by its processor time: on an idle machine that is the time which passes. Several threads wait for each other, so theirs is the
time that passes, and holds only for a machine that has nothing else to do. Other work takes caches and memory away, which makes a timing longer and
hardly ever shorter, so the least of five counts. Where the processor counts its energy, the power that it draws meanwhile is kept beside.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import GgmlCodec, open_source
from bitwright.devices import POWER_UNKNOWN, Latency, PackageEnergy, PowerUnknown, Timed, fit_latency, package_energy, processors
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.target import LLAMA_CPP, held
from bitwright.engines.llama_cpp.trial_model import TrialModel, TrialShape, n_layers_of, trial_matrices, trial_of_model, trial_of_shape, write_trial
from bitwright.engines.llama_cpp.view import LLAMA_CPP_VIEW
from bitwright.errors import UserError
from bitwright.objectives import tensor_read_shares
from bitwright.progress import Progress, Silent
from bitwright.spaces import Format

DEPTHS = (12, 6)
_TOKENS, _REPEATS, _PROMPT = 8, 5, 200
_ENOUGH = 150_000_000  # weights in layers, far more than caches hold in most formats
_BESIDE = ("Q8_0", "F16")  # what rows are in that a format does not divide: the first that does
_BUSY = 0.5  # processes that wait for a processor
_SHORTEST = 1e-7  # seconds: of two texts the longer one may seem the faster on a busy machine


@dataclass(frozen=True)
class Trial:
    """Timing of one model: seconds for a token and for a token of a prompt, and the joules and seconds of the whole timing."""

    timed: Timed
    seconds_per_prompt_token: float
    joules: float
    seconds: float


@dataclass(frozen=True, eq=False)
class TimedThreads:
    """Timings with one number of threads: the latency, and the seconds for a token of a prompt by format."""

    latency: Latency
    seconds_per_prompt_token: Mapping[str, float]

    def to_toml(self) -> str:
        """Return the timings as a `[latency]` table of a device."""
        latency = self.latency
        rates = "".join(f"{form} = {1e9 * rate:.6g}\n" for form, rate in latency.seconds_per_byte.items())
        prompts = "".join(f"# {form} {1 / seconds:.6g}\n" for form, seconds in self.seconds_per_prompt_token.items())
        watts = latency.power_watts
        power = "" if isinstance(watts, PowerUnknown) else f"power_watts = {watts:.4g}  # of the processor's packages, by their own counters\n"
        return (
            f"# prompt tokens in a second of the deepest of the models that were timed, by format\n{prompts}\n"
            f"[[decode]]\nthreads = {latency.n_threads}\nseconds_per_step = {latency.seconds_per_step:.6g}\n"
            f"relative_error = {latency.relative_error:.4g}\n{power}\n[decode.seconds_per_gigabyte]\n{rates}"
        )


@dataclass(frozen=True, eq=False)
class MachineProfile:
    """Timings for each number of threads, the models they are of in words, the bytes a second that copying memory moves, how many processes waited
    for a processor when it began, and the seconds that all took.
    """

    timed_on: str
    threads: tuple[TimedThreads, ...]
    bandwidth_bytes_per_second: float
    load: float
    seconds: float

    @property
    def is_disturbed(self) -> bool:
        """True if several threads were timed while the machine had other work."""
        return self.load > _BUSY and any(of.latency.n_threads > 1 for of in self.threads)

    def to_toml(self) -> str:
        """Return the profile as a device for `bitwright fleet`; context, sequences and least speed are for its owner to fill in."""
        name = platform.processor() or platform.machine()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = max(of.latency.n_threads for of in self.threads)
        return (
            f'name = "this machine ({name})"\nmemory = "{memory}B"\nusable = 0.8\n'
            f"bandwidth_gb_per_second = {self.bandwidth_bytes_per_second / 1e9:.4g}\nreached = 1.0\n"
            f'engine = "{LLAMA_CPP.name}"\nversion = "{LLAMA_CPP.version}"\ncontext = 2048\nsequences = 1\nleast_tokens_per_second = 0\n'
            f"threads = {most}  # whose rates hold: one of those below\n\n"
            f'[source]\nbandwidth_gb_per_second = "copying of memory, by bitwright profile"\nusable = "an assumption"\n'
            f"decode = {json.dumps(self._found_by)}\n\n" + "\n".join(of.to_toml() for of in self.threads)
        )

    @property
    def _found_by(self) -> str:
        return f"bitwright profile on {self.timed_on}, in {self.seconds:.0f} s; load of the machine as it began {self.load:.1f}"


def profile_machine(
    formats: Sequence[str] = (), threads: Sequence[int] = (1,), *, model: str = "", progress: Progress | None = None
) -> MachineProfile:
    """Time every format (all of llama.cpp's when none is named) at two depths, on each number of `threads`: on random weights of the shapes of
    `model`, a file, folder or hub name, or of Llama's shape where it is empty.

    Raises:
        UserError: a name is no format of llama.cpp or none of them divides a row of the model, a number of threads is none of this machine's, or the
            model cannot be read.
    """
    wrong = [n for n in threads if not 1 <= n <= processors()]
    if wrong or not threads:
        raise UserError(f"A number of threads must be from 1 to {processors()}, this machine's processors; {wrong or 'none'} is not: name another.")
    named = [LLAMA_CPP.format(name) for name in formats] or list(LLAMA_CPP.formats)
    sources, words = trials(model)
    timed = formats_to_time(sources[0], named)
    started, load, energy = time.monotonic(), os.getloadavg()[0], package_energy()
    found: dict[int, list[Trial]] = {n: [] for n in dict.fromkeys(threads)}
    n_timings = len(sources) * len(timed) * len(found)
    with (progress or Silent()).stage("Timing llama.cpp", n_timings) as advance, tempfile.TemporaryDirectory() as scratch:
        for source in sources:
            for form in timed:
                formats_of = in_format(source, form)
                path = written_trial(source, formats_of, Path(scratch))
                for n_threads, of_threads in found.items():
                    of_threads.append(time_trial(path, source, formats_of, n_threads=n_threads, energy=energy))
                    advance(1)
    names = [form.name for form in timed]
    by_threads = tuple(_timed_threads(n, names, of_threads, energy) for n, of_threads in found.items())
    return MachineProfile(words, by_threads, copying_bandwidth(), load, time.monotonic() - started)


def trials(model: str, *, seed: int = 0) -> tuple[list[TrialModel], str]:
    """Return the models to time for `model`, or for any if it is empty, the deepest first; and their description.

    Raises:
        ModelError: the model cannot be read.
    """
    if not model:
        return [
            trial_of_shape(TrialShape(n), seed) for n in DEPTHS
        ], f"random models of {DEPTHS[0]} and {DEPTHS[1]} layers of width {TrialShape(1).width}"
    source = held(open_source(model, LLAMA_CPP_VIEW))
    n_all = n_layers_of(source)
    in_layers = sum(tensor.n_weights for tensor in trial_matrices(source) if tensor.name.startswith("blk."))
    deepest = min(max(2, -(-_ENOUGH * n_all // in_layers)), n_all)
    depths = list(dict.fromkeys((deepest, -(-deepest // 2))))
    return [
        trial_of_model(source, n, seed) for n in depths
    ], f"the shapes of {Path(model).name}, {' and '.join(map(str, depths))} layers, random weights"


def formats_to_time(source: TrialModel, named: Sequence[Format]) -> list[Format]:
    """Return those of the formats `named` whose blocks divide rows of a model, and substitutes for the rows that they do not divide.

    Raises:
        UserError: none of them does.
    """
    matrices = trial_matrices(source)
    timed = [form for form in named if any(form.fits(tensor.shape) for tensor in matrices)]
    if not timed:
        names = ", ".join(form.name for form in named)
        raise UserError(f"The blocks of a format must divide rows of the model that is timed; those of {names} divide none: name others.")
    needed = {name for form in timed for name in in_format(source, form).values()}
    return timed + [form for form in LLAMA_CPP.formats if form.name in needed - {form.name for form in timed}]


def in_format(source: TrialModel, form: Format) -> dict[str, str]:
    """Return the formats of a model's matrices: `form`, and another for those that it does not fit."""
    known = [form, *(LLAMA_CPP.format(name) for name in _BESIDE)]
    return {tensor.name: next(other.name for other in known if other.fits(tensor.shape)) for tensor in trial_matrices(source)}


def written_trial(source: TrialModel, formats: dict[str, str], scratch: Path) -> Path:
    """Write a model with its matrices in `formats` to the folder `scratch`."""
    path = scratch / "trial.gguf"
    write_trial(path, source, formats, GgmlCodec())
    return path


def time_trial(path: Path, source: TrialModel, formats: dict[str, str], *, n_threads: int, energy: PackageEnergy) -> Trial:
    """Time the model `source` with its matrices in `formats`, written to `path`."""
    engine = LlamaCpp(path, n_vocabulary=source.tensors[0].shape[0], n_threads=n_threads)
    engine.seconds_per_token(2)  # pages are read in
    started = time.monotonic()
    with energy.metered() as used:
        seconds = min(engine.seconds_per_token(_TOKENS) for _ in range(_REPEATS))
    passed = time.monotonic() - started
    read, shares = dict.fromkeys(formats.values(), 0.0), tensor_read_shares(source)
    for tensor in trial_matrices(source):
        form = LLAMA_CPP.format(formats[tensor.name])
        read[form.name] += shares[tensor.name] * form.size_bytes(tensor.shape)
    n_prompt = min(_PROMPT, source.context_length - 1) if source.context_length > 1 else _PROMPT
    return Trial(Timed(read, max(seconds, _SHORTEST)), engine.seconds_per_prompt_token(n_prompt), used.joules, passed)


def _timed_threads(n_threads: int, names: Sequence[str], trials: Sequence[Trial], energy: PackageEnergy) -> TimedThreads:
    watts: float | PowerUnknown = sum(trial.joules for trial in trials) / sum(trial.seconds for trial in trials) if energy.is_known else POWER_UNKNOWN
    prompts = {name: trial.seconds_per_prompt_token for name, trial in zip(names, trials, strict=False)}  # of the first depth
    return TimedThreads(fit_latency([trial.timed for trial in trials], n_threads=n_threads, power_watts=watts), prompts)


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
