"""Weights of a plan as it ships: requantized with another rounding than the search's, or changed by steps after quantization.

GPTQ is sequential here, so that each block sees the error of those before it. The measured bytes are saved, and `build` writes them. What depends on
calibration text, sequential codes and the weights of steps, cannot be reproduced: it is saved in the run folder once, and a plan names its file.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bitwright.compress import (
    Floats,
    Model,
    PackedTensors,
    ReparametrizedSource,
    Weights,
    dropped,
    needs_moments,
    pin_codes,
    planned_weights,
    without,
)
from bitwright.objectives import Tokens
from bitwright.pipeline.finishing.blockwise_gptq import WeightsInFormats, sequential_gptq
from bitwright.pipeline.finishing.healing import Healing, Training, healed
from bitwright.pipeline.finishing.moved_weights import moved_file, moved_levels, moved_source, moved_weights
from bitwright.pipeline.finishing.router_calibration import calibration_named
from bitwright.pipeline.finishing.step_files import kept_matrices, require_kept, step_file
from bitwright.pipeline.finishing.steps import calibrating, moving
from bitwright.pipeline.loaded_run import LoadedRun, referenced
from bitwright.pipeline.run import CODES, LEVELS, SHIPPED, Run
from bitwright.pipeline.settings import SEQUENTIAL
from bitwright.progress import Progress
from bitwright.spaces import ABSENT, DROP, Choice, Format, Kept, MovedChannels, PlannedStep, RequantizedCodes
from bitwright.written_files import digest


def shipped_folder(run: Run, formats: Mapping[str, str]) -> Path:
    """Return the folder of a plan's packed tensors as they ship, for its `formats` (tensor → format). With sequential rounding, each tensor depends
    on all earlier ones, and channels are moved for these formats, so every such plan has a folder of its own.
    """
    folder, moved = run.folder / SHIPPED / run.settings.shipped.replace(SEQUENTIAL, "-sequential"), moving(run.settings.steps)
    if not (run.settings.ships_sequentially or moved):
        return folder
    return folder / hashlib.sha256(repr((moved, sorted(formats.items())) if moved else sorted(formats.items())).encode()).hexdigest()[:16]


def healed_folder(run: Run, formats: Mapping[str, str], healing: Healing) -> Path:
    """Return the folder of a plan's packed tensors after healing, which are its own: every tensor is trained behind all others."""
    name = f"{run.settings.shipped.replace(SEQUENTIAL, '-sequential')}-{healing.words.replace(':', '-')}"
    return run.folder / SHIPPED / name / hashlib.sha256(repr(sorted(formats.items())).encode()).hexdigest()[:16]


def shipped_weights(loaded: LoadedRun, run: Run, choice: Choice) -> Weights:
    """Return the weights of a choice `(n_units,)` as they ship, computing those that are not stored. The model must have its original weights.

    Raises:
        UserError: the model is streamed, and what ships needs all of it in memory.
    """
    space, model = run.space, loaded.model
    if model.residence.is_streamed:
        run.settings.require_streamable()
    formats = space.names(choice)
    by_name: dict[str, Format] = {form.name: form for form in space.formats}
    chosen = {tensor: by_name[form] for tensor, form in formats.items()}
    moved = moved_source(loaded, run, formats)
    levels = _rounded(loaded, run, formats, moved) if run.settings.requantizes else loaded.levels
    if (healing := run.settings.healing) is not None:
        levels = _healed(loaded, run, levels, chosen, healing)
    weights = planned_weights(model, levels, formats=chosen)
    if moved is not None:
        moments = {} if run.settings.ships_sequentially else loaded.moments
        weights = {**weights, **moved_weights(loaded, run, moved_levels(loaded, run, moved, shipped_folder(run, formats), moments), chosen)}
    return apply_steps(run, model, weights, loaded.texts.calibration, formats=formats, progress=loaded.progress)


def _rounded(loaded: LoadedRun, run: Run, formats: Mapping[str, str], moved: ReparametrizedSource | None) -> PackedTensors:
    """Return the packed tensors of a plan of `formats` (tensor → format) with the rounding that ships, of a source with `moved` channels if any."""
    name, model, folder = run.settings.ship_codec, loaded.model, shipped_folder(run, formats)
    by_name: dict[str, Format] = {form.name: form for form in run.space.formats}

    def levels(moments: Mapping[str, Floats]) -> PackedTensors:
        if moved is not None:
            return moved_levels(loaded, run, moved, folder, moments).packed
        return PackedTensors(folder, model.source, loaded.engine.codec(name, moments), loaded.levels.importance)

    def in_module(moments: Mapping[str, Floats]) -> WeightsInFormats:
        return levels(moments) if moved is None else moved_levels(loaded, run, moved, folder, moments)

    if needs_moments(name):
        gone = [dropped(loaded.levels, tensor) for tensor in model.tensors if formats.get(tensor.name) == DROP.name]
        wanted = {tensor: by_name[form] for tensor, form in formats.items() if form != DROP.name}
        text, progress = loaded.texts.calibration, loaded.progress
        with (
            without(model, {part.expert: part.replacement for part in gone}),
            sequential_gptq(model, wanted, text, levels=in_module, progress=progress),
        ):
            pass
    else:
        for tensor in model.tensors:
            if tensor.name in formats:
                levels({}).packed(tensor, by_name[formats[tensor.name]])
    return levels({})


def _healed(loaded: LoadedRun, run: Run, levels: PackedTensors, wanted: Mapping[str, Format], healing: Healing) -> PackedTensors:
    """Return the packed tensors of a plan of formats `wanted` (tensor → format) after healing from `levels` on, which the run stores."""
    model, text = loaded.model, loaded.texts.calibration
    folder = healed_folder(run, {tensor: form.name for tensor, form in wanted.items()}, healing)
    found = PackedTensors(folder, model.source, levels.codec, levels.importance)
    tensors = [tensor for tensor in model.tensors if tensor.name in wanted and wanted[tensor.name].name not in (*ABSENT, tensor.stored)]
    if not all(found.has(tensor, wanted[tensor.name]) for tensor in tensors):
        with referenced(loaded, text) as reference:
            training = Training(healing.n_tokens, run.settings.seed)
            matrices = healed(model, levels, wanted, reference, training, progress=loaded.progress)
        for tensor in tensors:
            form = wanted[tensor.name]
            found.put(tensor, form, matrices[tensor.name].packed() if tensor.name in matrices else levels.packed(tensor, form))
    return found


def apply_steps(run: Run, model: Model, weights: Weights, tokens: Tokens, *, formats: Mapping[str, str], progress: Progress) -> Weights:
    """Return the `weights` of a plan of `formats` (tensor → format) with those that the run's later steps change, which are stored in the run."""
    found = dict(weights)
    for words in calibrating(run.settings.steps):
        path = step_file(run, formats, words, among=run.settings.shipping)
        made = kept_matrices(run, path, partial(calibration_named(words), model, dict(found), tokens, progress))
        found |= {name: lambda name=name, made=made: made[name] for name in made}  # type: ignore[misc]
    return found


def planned_steps(run: Run, formats: Mapping[str, str]) -> tuple[PlannedStep, ...]:
    """Return the steps of a plan of `formats` (tensor → format) as it was measured.

    Raises:
        RunError: their weights are gone or were changed.
    """
    planned = list[PlannedStep]()
    for number, name in enumerate(moving(run.settings.steps)):
        path = require_kept(run, moved_file(run, formats, number))
        planned.append(MovedChannels.model_validate({"step": name, "path": str(path.absolute()), "sha256": digest(path)}))
    if (healing := run.settings.healing) is not None:
        planned.append(healing.planned)
    for words in calibrating(run.settings.steps):
        path = require_kept(run, step_file(run, formats, words, among=run.settings.shipping))
        planned.append(calibration_named(words).planned(path))
    return tuple(planned)


def rounding_of(run: Run, formats: Mapping[str, str]) -> RequantizedCodes | Kept:
    """Return the rounding of a plan of `formats` (tensor → format) as it was measured. Codes that depend on calibration text (GPTQ) cannot be
    reproduced, and are saved in the run folder, once.

    Raises:
        RunError: the packed tensors to save are gone.
        OutputError: the file cannot be written.
    """
    settings = run.settings
    searched, shipped = settings.rounding, settings.shipped
    if not (settings.ships_sequentially or needs_moments(shipped) or settings.healing):
        return RequantizedCodes(searched=searched, shipped=shipped)
    made_anew = settings.requantizes or moving(settings.steps)
    folder = shipped_folder(run, formats) if made_anew else run.folder / LEVELS
    path = _saved_codes(run, formats, folder=healed_folder(run, formats, settings.healing) if settings.healing else folder)
    return Kept(searched=searched, shipped=shipped, path=str(path.absolute()), sha256=digest(path))


def _saved_codes(run: Run, formats: Mapping[str, str], *, folder: Path) -> Path:
    """Write the packed tensors in `folder` whose format differs from the source's to one file, and return its path."""
    stored = {tensor.name: tensor.stored for unit in run.space.units for tensor in unit.tensors}
    pairs = [(tensor, form) for tensor, form in formats.items() if form not in (*ABSENT, stored[tensor])]
    name = hashlib.sha256(repr((run.settings.shipping, pairs)).encode()).hexdigest()[:16]
    path = run.folder / CODES / f"{name}.safetensors"
    key = f"{CODES}/{path.name}"
    if not (run.store.has_text(key) and path.is_file() and digest(path) == run.store.text(key)):
        pin_codes(path, folder, pairs)
        run.store.put_text(key, digest(path))
    return path
