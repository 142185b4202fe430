"""A plan found with a cheap rounding, shipped with a better one, or with steps after it: candidates are measured again, and the best of them wins.

GPTQ runs block after block here, so that each block sees the error of those before it; the bytes that are measured are kept, and `build` writes them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitwright.compress import Floats, Levels, dropped, needs_moments, planned_weights, without
from bitwright.objectives import Divergence, Measurement, Reference
from bitwright.pipeline.blockwise_gptq import sequentially_rounded
from bitwright.pipeline.plan_steps import stepped
from bitwright.pipeline.run import SHIPPED, Run
from bitwright.pipeline.workbench import Workbench, timed
from bitwright.spaces import DROP, Choice, Format


def measure_as_shipped(bench: Workbench, run: Run, choices: Sequence[Choice]) -> None:
    """Make of those of `choices` that were not yet what ships, and measure it on held-out text, one transaction each."""
    known = run.shipped
    pending = [choice for choice in choices if tuple(choice.tolist()) not in known]
    if not pending:
        return
    reference = Reference(bench.model, bench.texts.held_out, scratch=bench.folder, progress=bench.progress)
    for choice in pending:
        with timed(bench.store, "ship", bench.texts.held_out.n_tokens):
            run.store.put_shipped(run.settings.shipping, _measured(bench, run, choice, reference=reference))
    reference.discard()


def shipped_levels(run: Run, formats: Mapping[str, str]) -> Path:
    """The folder of the levels of a plan of `formats` (tensor → format) as they ship. In order they hang on every other tensor of the plan."""
    folder = run.folder / SHIPPED / run.settings.shipped.replace(", ", "-").replace(" ", "-")
    return folder / hashlib.sha256(repr(sorted(formats.items())).encode()).hexdigest()[:16] if run.settings.ships_in_order else folder


def _measured(bench: Workbench, run: Run, choice: Choice, *, reference: Reference) -> Measurement:
    space, model, text = run.prices.space, bench.model, bench.texts.calibration
    formats = space.names(choice)
    by_name: dict[str, Format] = {form.name: form for form in space.formats}
    levels = _rounded(bench, run, formats) if run.settings.rounds_anew else bench.levels
    weights = planned_weights(model, levels, formats={tensor: by_name[form] for tensor, form in formats.items()})
    weights = stepped(run, model, weights, text, formats=formats, progress=bench.progress)
    return Divergence(model, levels, space=space, reference=reference).of_choice(choice, weights)


def _rounded(bench: Workbench, run: Run, formats: Mapping[str, str]) -> Levels:
    """The levels of a plan of `formats` (tensor → format) by the rounding that ships, all packed."""
    name, model, folder = run.settings.ship_codec, bench.model, shipped_levels(run, formats)
    by_name: dict[str, Format] = {form.name: form for form in run.prices.space.formats}

    def levels(moments: Mapping[str, Floats]) -> Levels:
        return Levels(folder, model.source, bench.engine.codec(name, moments), bench.levels.importance)

    if needs_moments(name):
        gone = [dropped(bench.levels, tensor) for tensor in model.tensors if formats.get(tensor.name) == DROP.name]
        wanted = {tensor: by_name[form] for tensor, form in formats.items() if form != DROP.name}
        text, progress = bench.texts.calibration, bench.progress
        with without(model, {part.expert: part.heir for part in gone}), sequentially_rounded(model, wanted, text, levels=levels, progress=progress):
            pass
    else:
        for tensor in model.tensors:
            if tensor.name in formats:
                levels({}).packed(tensor, by_name[formats[tensor.name]])
    return levels({})
