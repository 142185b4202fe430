"""Weights of a plan whose channels are moved before quantization: fitted, kept in the run, packed, and measured.

They are measured among the model's other weights as they are: a matrix W that became Ŵ A, which reads A⁻¹ x, is measured as Ŵ, which reads x. So the
module is never changed, and norms, which only the written file has anew, need no place in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bitwright.compress import (
    Floats,
    PackedTensors,
    Reparametrization,
    ReparametrizedSource,
    Weights,
    junctions,
    needs_moments,
    reparametrization,
)
from bitwright.pipeline.finishing.channel_fitting import CodecWith, Fitting, MovedMoments
from bitwright.pipeline.finishing.moved_channels import MOVING_STEPS, MovingStep
from bitwright.pipeline.finishing.step_files import kept_matrices, step_file
from bitwright.pipeline.finishing.steps import moving
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.run import Run
from bitwright.spaces import DEFAULT_CACHE, GGML_BY_NAME, Format, Tensor


@dataclass(frozen=True, eq=False)
class RestoredTensors:
    """Packed tensors of `source`, whose channels were moved, as weights for the model with its channels as they were."""

    packed: PackedTensors
    source: ReparametrizedSource

    def weights(self, tensor: Tensor, form: Format) -> Floats:
        """Return the weights `(n_rows, n_columns)` of a tensor in a format."""
        return self.source.restored(tensor.name, self.packed.weights(tensor, form))


@dataclass(frozen=True)
class RestoredWeights:
    """Weights of a tensor in a format, expanded when they are asked for."""

    levels: RestoredTensors
    tensor: Tensor
    form: Format

    def __call__(self) -> Floats:
        """Return the weights `(n_rows, n_columns)`."""
        return self.levels.weights(self.tensor, self.form)


def moved_file(run: Run, formats: Mapping[str, str], number: int) -> Path:
    """Return the file of the maps of the step of that number, of those that move channels, for a plan of `formats` (tensor → format)."""
    steps = moving(run.settings.steps)
    return step_file(run, formats, steps[number], among=", ".join((run.settings.shipped, *steps[:number])))


def moved_source(loaded: LoadedRun, run: Run, formats: Mapping[str, str]) -> ReparametrizedSource | None:
    """Return the run's source with channels moved by its steps for a plan of `formats` (tensor → format), fitting those that are not kept; None where
    there are no such steps. The model must have its original weights.
    """
    source, steps = loaded.model.source, list[Reparametrization]()
    names = moving(run.settings.steps)
    places = junctions(source) if names else ()
    for number, name in enumerate(names):
        path, so_far = moved_file(run, formats, number), ReparametrizedSource(source, steps)
        steps.append(reparametrization(kept_matrices(run, path, partial(_fitted, loaded, run, MOVING_STEPS[name], so_far, formats)), places))
    return ReparametrizedSource(source, steps) if names else None


def _fitted(loaded: LoadedRun, run: Run, step: MovingStep, source: ReparametrizedSource, formats: Mapping[str, str]) -> dict[str, Floats]:
    """Return the maps of a step as matrices, for a `source` whose channels the steps before it moved."""
    by_name = {form.name: form for form in run.space.formats}
    first = {tensor.name: i for i, tensor in enumerate(source.tensors)}  # moments are collected in the order of the tensors
    places = step.places(junctions(source), values=run.settings.cache == DEFAULT_CACHE)
    fitting = Fitting(
        source,
        {tensor: by_name[form] for tensor, form in formats.items()},
        codec_of(loaded, run),
        source.squares(loaded.levels.importance),
        MovedMoments(source, loaded.moments),
    )
    text, title = loaded.texts.calibration, f"Fitting the step {step.name}"
    with timed(loaded.store, step.name, text.n_tokens), loaded.progress.stage(title, len(places)) as advance:
        return step.fitted(fitting, sorted(places, key=lambda at: first[at.readers[0]]), advance).matrices()


def codec_of(loaded: LoadedRun, run: Run) -> CodecWith:
    """Return the function from second moments to the codec that ships."""
    name = run.settings.ship_codec if run.settings.requantizes else run.settings.rounding
    return lambda moments: loaded.engine.codec(name, moments)


def moved_levels(loaded: LoadedRun, run: Run, source: ReparametrizedSource, folder: Path, moments: Mapping[str, Floats]) -> RestoredTensors:
    """Return the packed tensors of a source with moved channels, with the codec that ships and the `moments` of the channels as they were."""
    codec = codec_of(loaded, run)(MovedMoments(source, moments))
    return RestoredTensors(PackedTensors(folder, source, codec, source.squares(loaded.levels.importance)), source)


def moved_weights(loaded: LoadedRun, run: Run, levels: RestoredTensors, formats: Mapping[str, Format]) -> Weights:
    """Return the weights of every matrix whose channels were moved, in its format, or rounded to the type that it is stored in.

    They are packed now, while the model has its original weights, which moments are collected with.
    """
    found: dict[str, RestoredWeights] = {}
    for tensor in loaded.model.tensors:
        if tensor.name in loaded.model.pieces and levels.source.changes(tensor.name):
            form = formats.get(tensor.name, GGML_BY_NAME[tensor.stored])
            levels.packed.packed(tensor, form)
            found[tensor.name] = RestoredWeights(levels, tensor, form)
    if needs_moments(run.settings.shipped) and not run.settings.requantizes:
        _keep_others(loaded, levels.packed, formats)
    return found


def _keep_others(loaded: LoadedRun, levels: PackedTensors, formats: Mapping[str, Format]) -> None:
    """Copy the codes of the tensors that stay as they are, since codes that depend on a text are saved from one folder."""
    for tensor in loaded.model.tensors:
        form = formats.get(tensor.name)
        if form is not None and not levels.has(tensor, form):
            levels.put(tensor, form, loaded.levels.packed(tensor, form))
