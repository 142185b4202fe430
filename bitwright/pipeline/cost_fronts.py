"""Pareto front of a run over size, a cost and predicted divergence, from its sensitivity table, without measuring."""

from collections.abc import Iterable

import numpy as np

from bitwright.devices import Device
from bitwright.objectives import Cost
from bitwright.pipeline.cost_limits import NoDevice
from bitwright.pipeline.run import Run
from bitwright.report import CostFront
from bitwright.search import surface
from bitwright.spaces import Choice


def cost_front(run: Run, cost: Cost, *, device: Device | NoDevice, candidates: Iterable[Choice]) -> CostFront:
    """Return the front over bytes, a cost and the predicted divergence, and the cost of each of `candidates`.

    Raises:
        UserError: the cost is not known for a pair that the run offers.
    """
    space, scale = run.prices.space, run.scale
    found = surface(space, run.prices.table, cost.table)
    objective, named = cost.objective, "" if isinstance(device, NoDevice) else device.name
    return CostFront(
        cost=objective.value,
        unit=objective.unit,
        device=named if objective.needs_device else "",
        sizes_bytes=found.size_bits // 8,
        taken=found.taken + cost.fixed,
        nats=scale.factor * found.loss,
        of_candidates=np.array([float(cost.of(choice)) for choice in candidates]),
    )
