"""Offer of steps that move channels: the plan with them, or the same plan without where that measures better on held-out text."""

from dataclasses import replace

import numpy as np

from bitwright.objectives import Measurement, standard_error
from bitwright.pipeline.finishing.steps import later
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.plan_request import PlanRequest
from bitwright.pipeline.planning.held_out import measure_shipped
from bitwright.pipeline.run import Run
from bitwright.report import StepNote
from bitwright.spaces import Plan


def without_moving(run: Run) -> Run:
    """Return the run without its steps that move channels, as its candidates are compared."""
    return replace(run, settings=replace(run.settings, steps=later(run.settings.steps)))


def offer_steps(loaded: LoadedRun, request: PlanRequest, names: tuple[str, ...]) -> tuple[Plan, tuple[StepNote, ...]]:
    """Return the plan of the best candidate of a request with the first one, the first two, … of the steps `names`, or with none of them, whichever
    measures best, and the comparisons.
    """
    name, alone = request.named_best({})
    variants = [_with(request.run, names[:n]) for n in range(1, len(names) + 1)]
    measure_shipped(loaded, variants, np.array(alone.choice))
    measured = [variant.shipped[alone.choice] for variant in variants]
    best = min(range(len(measured)), key=lambda i: measured[i].nats_per_token, default=-1)
    ships = best if best >= 0 and measured[best].nats_per_token < alone.nats_per_token else -1
    notes = tuple(_note(names[: i + 1], found, alone, ships=i == ships) for i, found in enumerate(measured))
    return request.planned(name, alone if ships < 0 else measured[ships], request.run if ships < 0 else variants[ships]), notes


def _with(run: Run, names: tuple[str, ...]) -> Run:
    return replace(run, settings=replace(run.settings, steps=(*names, *run.settings.steps)))


def _note(names: tuple[str, ...], found: Measurement, alone: Measurement, *, ships: bool) -> StepNote:
    paired = found.by_sequence[:, 0] - alone.by_sequence[:, 0]
    difference = float(np.mean(paired)), standard_error(paired)
    return StepNote(", ".join(names), found.nats_per_token, found.standard_error, alone.nats_per_token, difference, ships)
