"""Channels of a plan that were moved between matrices before anything was quantized."""

from pathlib import Path

from bitwright.compress import ReparametrizedSource, Source, junctions, read_pinned_weights, reparametrization
from bitwright.spaces import MovedChannels, Plan


def moved_source(plan: Plan, source: Source) -> ReparametrizedSource | None:
    """Return the `source` with its channels as the steps of a plan moved them; None where the plan has no such step.

    Raises:
        PlanError: a file of maps is missing, changed since it was measured, or does not fit this model.
        ModelError: channels cannot be moved in this model.
    """
    moving = [step for step in plan.steps if isinstance(step, MovedChannels)]
    if not moving:
        return None
    places = junctions(source)
    return ReparametrizedSource(source, [reparametrization(read_pinned_weights(Path(step.path), step.sha256), places) for step in moving])
