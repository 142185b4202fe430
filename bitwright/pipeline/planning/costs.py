"""Costs of a run's choices by name: bytes and bits of the file, active bytes of a decode step, seconds and joules on a device."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bitwright.compress import Source, open_source
from bitwright.devices import Device, PowerUnknown
from bitwright.engines import Anatomy, Serving, engine_named, memory_model_named
from bitwright.errors import DeviceError
from bitwright.objectives import Cost, CostObjective, Reading, bits_cost, bytes_cost, reading
from bitwright.pipeline.planning.cost_limits import Conditions, CostLimit
from bitwright.pipeline.pricing.link import link_of
from bitwright.pipeline.run import Run
from bitwright.report import CostFront
from bitwright.search import surface
from bitwright.spaces import DEFAULT_CACHE, CacheTypes, Choice, Space, has_cache, with_cache_sizes


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs of a run's choices. `source` is the run's model, of which only tensor names and shapes are read."""

    run: Run
    source: Source

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's dimensions that determine its memory use in the engine.

        Raises:
            UserError: there is no memory model for the engine.
        """
        return memory_model_named(self.run.settings.target).anatomy(self.source)

    def reading(self, space: Space) -> Reading:
        """Return the decode traffic of choices of `space`, which is the run's space or a narrowed one."""
        return reading(space, engine_named(self.run.settings.target).held(self.source), self.run.routing)

    def seconds(self, device: Device, space: Space) -> Cost:
        """Return the seconds of a decode step, one token of each sequence, on a device with a full KV cache.

        Raises:
            UserError: the device has another engine, or no rate for a format of the space.
        """
        require_engine(device, self.run.settings.target)
        if has_cache(space):
            plain = serving_of(replace(device, cache=DEFAULT_CACHE))
            return self.reading(with_cache_sizes(space, self.anatomy.cache_bytes(plain))).seconds(device, cache_bytes=0)
        use = self.anatomy.use(serving_of(device), file_bytes=self.anatomy.header_bytes)
        return self.reading(space).seconds(device, cache_bytes=sum(line.size_bytes for line in use.cache))

    def named(self, objective: CostObjective, device: Device | None) -> Cost:
        """Return the cost of that name, for every pair that the run has quantized.

        Raises:
            DeviceError: the cost needs a device and there is none, or its power is not known.
            UserError: the cost cannot be computed for this run.
        """
        space = with_cache_sizes(self.run.everything, {})  # sizes of the file alone
        if objective in (CostObjective.BYTES, CostObjective.BITS):
            return bytes_cost(space) if objective == CostObjective.BYTES else bits_cost(space)
        if objective == CostObjective.ACTIVE_BYTES:
            return self.reading(space).active_bytes()
        device = _required(objective, device)
        seconds = self.seconds(device, space)
        return seconds if objective == CostObjective.SECONDS else joules(seconds, device)


def require_countable(objectives: Iterable[CostObjective], device: Device | None, target: str) -> None:
    """Raise if costs cannot be computed on a device for a target, whatever the model.

    Raises:
        DeviceError: a cost needs a device and there is none, its power is not known, or it has another engine.
    """
    for objective in objectives:
        if objective in (CostObjective.SECONDS, CostObjective.JOULES):
            named = _required(objective, device)
            require_engine(named, target)
            if objective == CostObjective.JOULES:
                _power(named)


def require_engine(device: Device, target: str) -> None:
    """Raise if a device's engine is not that of the target.

    Raises:
        DeviceError: see above.
    """
    if device.engine != target:
        raise DeviceError(
            f"A device must have the engine that the run is for; {device.name} has {device.engine} and the run is for {target}: search for that "
            "target."
        )


def _required(objective: CostObjective, device: Device | None) -> Device:
    if device is None:
        raise DeviceError(f"{objective} is computed for a device; none was named: give --profile, a file of `bitwright profile` or a known name.")
    return device


def joules(seconds: Cost, device: Device) -> Cost:
    """Return the joules per token: the device's power times the seconds of a decode step, divided by the sequences decoded in it.

    Raises:
        DeviceError: the power is not known.
    """
    return seconds.times(_power(device) / device.sequences, CostObjective.JOULES)


def _power(device: Device) -> float:
    if isinstance(device.power_watts, PowerUnknown):
        raise DeviceError(
            f"{CostObjective.JOULES} needs the power of a device; that of {device.name} is not known: write `power_watts` into its file, or let "
            "`bitwright profile` read it where the processor counts its energy."
        )
    return device.power_watts


def costs_of(run: Run) -> Costs:
    """Return the costs of a run's choices.

    Raises:
        UserError: the model is no longer at its path.
    """
    return Costs(run, open_source(run.settings.model, engine_named(run.settings.target).view))


def named_costs(run: Run, objectives: Iterable[CostObjective], device: Device | None) -> tuple[Cost, ...]:
    """Return the costs of those names; the model is opened only if there are any.

    Raises:
        UserError: see `Costs.named`.
    """
    wanted = tuple(objectives)
    if not wanted:
        return ()
    known = costs_of(run)
    return tuple(known.named(objective, device) for objective in wanted)


def limits_of(run: Run, conditions: Conditions) -> tuple[CostLimit, ...]:
    """Return the ceilings as limits on the choices of a run.

    Raises:
        UserError: a cost cannot be computed for the run.
    """
    costs = named_costs(run, (asked.objective for asked in conditions.at_most), conditions.device)
    return tuple(CostLimit(cost, asked.value) for cost, asked in zip(costs, conditions.at_most, strict=True))


def serving_of(device: Device, types: CacheTypes = DEFAULT_CACHE) -> Serving:
    """Return the serving settings of a device: context, sequences, and its own KV cache types if it names them, else `types`."""
    cache = device.cache if isinstance(device.cache, CacheTypes) else types
    return Serving(device.context, device.sequences, cache.keys, cache.values)


def cost_front(run: Run, cost: Cost, *, device: Device | None, candidates: Iterable[Choice]) -> CostFront:
    """Return the front over bytes, a cost and the predicted divergence, and the cost of each of `candidates`.

    Raises:
        UserError: the cost is not known for a pair that the run offers.
    """
    space, link = run.space, link_of(run)
    found = surface(space, run.table, cost.table)
    objective, named = cost.objective, "" if device is None else device.name
    return CostFront(
        cost=objective.value,
        unit=objective.unit,
        device=named if objective.needs_device else "",
        sizes_bytes=found.size_bits // 8,
        taken=found.taken + cost.fixed,
        nats=link.nats(found.loss),
        of_candidates=np.array([float(cost.of(choice)) for choice in candidates]),
    )
