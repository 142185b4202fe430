"""Weights of a plan as it ships: requantized with another rounding than the search's, or changed by steps after quantization.

GPTQ is sequential here, so that each block sees the error of those before it. The measured bytes are saved, and `build` writes them.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bitwright.compress import Floats, PackedTensors, Weights, dropped, needs_moments, planned_weights, without
from bitwright.pipeline.blockwise_gptq import sequential_gptq
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.plan_steps import apply_steps
from bitwright.pipeline.run import SHIPPED, Run
from bitwright.pipeline.settings import SEQUENTIAL
from bitwright.spaces import DROP, Choice, Format


def shipped_folder(run: Run, formats: Mapping[str, str]) -> Path:
    """Return the folder of a plan's packed tensors as they ship, for its `formats` (tensor → format). With sequential rounding, each tensor depends
    on all earlier ones, so every plan has a folder of its own.
    """
    folder = run.folder / SHIPPED / run.settings.shipped.replace(SEQUENTIAL, "-sequential")
    return folder / hashlib.sha256(repr(sorted(formats.items())).encode()).hexdigest()[:16] if run.settings.ships_sequentially else folder


def shipped_weights(loaded: LoadedRun, run: Run, choice: Choice) -> Weights:
    """Return the weights of a choice `(n_units,)` as they ship, computing those that are not stored. The model must have its original weights."""
    space, model = run.prices.space, loaded.model
    formats = space.names(choice)
    by_name: dict[str, Format] = {form.name: form for form in space.formats}
    levels = _rounded(loaded, run, formats) if run.settings.requantizes else loaded.levels
    weights = planned_weights(model, levels, formats={tensor: by_name[form] for tensor, form in formats.items()})
    return apply_steps(run, model, weights, loaded.texts.calibration, formats=formats, progress=loaded.progress)


def _rounded(loaded: LoadedRun, run: Run, formats: Mapping[str, str]) -> PackedTensors:
    """Return the packed tensors of a plan of `formats` (tensor → format) with the rounding that ships."""
    name, model, folder = run.settings.ship_codec, loaded.model, shipped_folder(run, formats)
    by_name: dict[str, Format] = {form.name: form for form in run.prices.space.formats}

    def levels(moments: Mapping[str, Floats]) -> PackedTensors:
        return PackedTensors(folder, model.source, loaded.engine.codec(name, moments), loaded.levels.importance)

    if needs_moments(name):
        gone = [dropped(loaded.levels, tensor) for tensor in model.tensors if formats.get(tensor.name) == DROP.name]
        wanted = {tensor: by_name[form] for tensor, form in formats.items() if form != DROP.name}
        text, progress = loaded.texts.calibration, loaded.progress
        with (
            without(model, {part.expert: part.replacement for part in gone}),
            sequential_gptq(model, wanted, text, levels=levels, progress=progress),
        ):
            pass
    else:
        for tensor in model.tensors:
            if tensor.name in formats:
                levels({}).packed(tensor, by_name[formats[tensor.name]])
    return levels({})
