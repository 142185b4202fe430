"""A plan found with a cheap rounding, shipped with a better one, or with steps after it: the weights that ship.

GPTQ runs block after block here, so that each block sees the error of those before it; the bytes that are measured are kept, and `build` writes them.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bitwright.compress import Floats, PackedTensors, Weights, dropped, needs_moments, planned_weights, without
from bitwright.pipeline.blockwise_gptq import sequentially_rounded
from bitwright.pipeline.plan_steps import stepped
from bitwright.pipeline.run import SHIPPED, Run
from bitwright.pipeline.settings import IN_ORDER
from bitwright.pipeline.workbench import Workbench
from bitwright.spaces import DROP, Choice, Format


def shipped_levels(run: Run, formats: Mapping[str, str]) -> Path:
    """The folder of the levels of a plan of `formats` (tensor → format) as they ship. In order they hang on every other tensor of the plan."""
    folder = run.folder / SHIPPED / run.settings.shipped.replace(IN_ORDER, "-sequential")
    return folder / hashlib.sha256(repr(sorted(formats.items())).encode()).hexdigest()[:16] if run.settings.ships_in_order else folder


def shipped_weights(bench: Workbench, run: Run, choice: Choice) -> Weights:
    """The weights of a choice `(n_units,)` as they ship, made now where they were not yet; the model has its original weights."""
    space, model = run.prices.space, bench.model
    formats = space.names(choice)
    by_name: dict[str, Format] = {form.name: form for form in space.formats}
    levels = _rounded(bench, run, formats) if run.settings.rounds_anew else bench.levels
    weights = planned_weights(model, levels, formats={tensor: by_name[form] for tensor, form in formats.items()})
    return stepped(run, model, weights, bench.texts.calibration, formats=formats, progress=bench.progress)


def _rounded(bench: Workbench, run: Run, formats: Mapping[str, str]) -> PackedTensors:
    """The levels of a plan of `formats` (tensor → format) by the rounding that ships, all packed."""
    name, model, folder = run.settings.ship_codec, bench.model, shipped_levels(run, formats)
    by_name: dict[str, Format] = {form.name: form for form in run.prices.space.formats}

    def levels(moments: Mapping[str, Floats]) -> PackedTensors:
        return PackedTensors(folder, model.source, bench.engine.codec(name, moments), bench.levels.importance)

    if needs_moments(name):
        gone = [dropped(bench.levels, tensor) for tensor in model.tensors if formats.get(tensor.name) == DROP.name]
        wanted = {tensor: by_name[form] for tensor, form in formats.items() if form != DROP.name}
        text, progress = bench.texts.calibration, bench.progress
        with (
            without(model, {part.expert: part.replacement for part in gone}),
            sequentially_rounded(model, wanted, text, levels=levels, progress=progress),
        ):
            pass
    else:
        for tensor in model.tensors:
            if tensor.name in formats:
                levels({}).packed(tensor, by_name[formats[tensor.name]])
    return levels({})
