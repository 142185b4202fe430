"""Steps applied to a plan after quantization: their weights are computed once, stored in the run, and referenced by the plan."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bitwright.compress import Model, Weights, pin_weights, read_pinned_weights
from bitwright.errors import RunError
from bitwright.objectives import Tokens
from bitwright.pipeline.run import STEPS, Run
from bitwright.pipeline.steps import step_named
from bitwright.progress import Progress
from bitwright.spaces import CalibratedRouters
from bitwright.written_files import digest


def apply_steps(run: Run, model: Model, weights: Weights, tokens: Tokens, *, formats: Mapping[str, str], progress: Progress) -> Weights:
    """Return the `weights` of a plan of `formats` (tensor → format) with those that the run's steps change, which are stored in the run."""
    found = dict(weights)
    for words in run.settings.steps:
        path = _path(run, formats, words)
        if not _is_as_kept(run, path):
            pin_weights(path, step_named(words)(model, found, tokens, progress))
            run.store.put_text(_key(path), digest(path))
        made = read_pinned_weights(path, run.store.text(_key(path)))
        found |= {name: lambda name=name, made=made: made[name] for name in made}  # type: ignore[misc]
    return found


def planned_steps(run: Run, formats: Mapping[str, str]) -> tuple[CalibratedRouters, ...]:
    """Return the steps of a plan of `formats` (tensor → format) as it was measured.

    Raises:
        RunError: their weights are gone or were changed.
    """
    planned = []
    for words in run.settings.steps:
        path = _path(run, formats, words)
        if not _is_as_kept(run, path):
            raise RunError(
                f"The weights of a step depend on calibration text and cannot be reproduced; {path} is gone or changed: run the search again with "
                "another --out."
            )
        planned.append(step_named(words).planned(path))
    return tuple(planned)


def _is_as_kept(run: Run, path: Path) -> bool:
    return run.store.has_text(_key(path)) and path.is_file() and digest(path) == run.store.text(_key(path))


def _key(path: Path) -> str:
    """Return the key of the stored SHA-256 of a step's weights."""
    return f"{STEPS}/{path.name}"


def _path(run: Run, formats: Mapping[str, str], words: str) -> Path:
    name = hashlib.sha256(repr((run.settings.shipping, words, sorted(formats.items()))).encode()).hexdigest()[:16]
    return run.folder / STEPS / f"{name}.safetensors"
