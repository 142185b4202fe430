"""One run, a plan for every device: from what was measured once, and without measuring or loading anything again.

For each device the memory that its context, sequences and cache leave is a budget, and its least speed another by the bandwidth model. Candidates are
the measured choices of the run within both, and the exact optimum of the table, whose divergence is foretold from the measured ones; the least wins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitwright.compress import open_source
from bitwright.errors import UserError
from bitwright.objectives import Measurement, MemoryUse, require_accounting
from bitwright.pipeline.bandwidth import Reading, reading, serving_of, tokens_per_second
from bitwright.pipeline.foretelling import Foreteller, Foretold, foreteller
from bitwright.pipeline.memory import Anatomy, anatomy
from bitwright.pipeline.planning import make_plan, promised_plan
from bitwright.pipeline.run import Run
from bitwright.search import solve
from bitwright.spaces import TARGETS, Choice, Device, Plan, Promise, Space

_MEBIBYTE = 2**20
_BISECTIONS = 24
_COARSER_CACHES = (("Q8_0", "Q8_0"), ("Q4_0", "Q4_0"))
_CELLS = 256


@dataclass(frozen=True, eq=False)
class Assigned:
    """A device and its plan: the memory that a run of it takes, and the rate of each sequence that bandwidth allows."""

    device: Device
    plan: Plan
    choice: Choice
    memory: MemoryUse
    tokens_per_second: float


@dataclass(frozen=True)
class Unserved:
    """A device on which nothing fits, and a sentence: what is missing, and what would make it fit."""

    device: Device
    reason: str


@dataclass(frozen=True, eq=False)
class Fleet:
    """Devices with their plans, in the order they were given."""

    run: Run
    rows: tuple[Assigned | Unserved, ...]

    @property
    def assigned(self) -> tuple[Assigned, ...]:
        """The devices that have a plan."""
        return tuple(row for row in self.rows if isinstance(row, Assigned))


@dataclass(frozen=True, eq=False)
class _Ground:
    """What is the same for every device of a run."""

    run: Run
    anatomy: Anatomy
    reading: Reading
    foretell: Foreteller

    def space(self, device: Device) -> Space:
        """The formats that the device does not avoid; a unit for which that leaves none keeps what was packed, less those, or else all.

        Raises:
            UserError: a format to avoid that does not exist.
        """
        space, tried = self.run.prices.space, self.run.prices.tried
        avoided = {TARGETS[device.engine].format(name).name for name in device.avoid}
        runs = np.array([form.name not in avoided for form in space.formats])
        offered = np.where((space.offered & runs).any(axis=1, keepdims=True), space.offered & runs, tried & runs)
        return replace(space, offered=np.where(offered.any(axis=1, keepdims=True), offered, space.offered))

    def use(self, device: Device, choice: Choice) -> MemoryUse:
        return self.anatomy.use(serving_of(device), file_bytes=self.run.prices.space.total_bytes(choice))

    def rate(self, device: Device, choice: Choice) -> float:
        return tokens_per_second(device, self.reading, choice, self.use(device, choice))

    def serves(self, device: Device, choice: Choice) -> bool:
        """Whether a choice is within the device's memory and fast enough."""
        return self.use(device, choice).total_bytes <= device.usable_bytes and self.rate(device, choice) >= device.least_tokens_per_second

    def served_at_all(self, device: Device) -> bool:
        """Whether the smallest file is."""
        try:
            return self.serves(device, self.space(device).smallest())
        except UserError:
            return False


def plan_fleet(run: Run, devices: Sequence[Device]) -> Fleet:
    """The best plan of a run for each device, as it was searched: no steps are taken.

    Raises:
        UserError: the run is for a target whose memory is not counted, or its model cannot be opened.
    """
    require_accounting(TARGETS[run.settings.target])
    run = replace(run, settings=replace(run.settings, steps=()))  # they would have to be measured with every plan
    source = open_source(run.settings.model)
    found = anatomy(source)
    ground = _Ground(run, found, reading(run.prices.space, source, found), foreteller(run))
    return Fleet(run, tuple(_row(ground, device) for device in devices))


def _row(ground: _Ground, device: Device) -> Assigned | Unserved:
    if device.engine != ground.run.settings.target:
        return Unserved(device, f"The run is for {ground.run.settings.target} and {device.name} has {device.engine}: search for that target.")
    try:
        space = ground.space(device)
        if not ground.serves(device, space.smallest()):
            return Unserved(device, _what_is_missing(ground, device, space.smallest()))
        return _best(ground, device, space)
    except UserError as error:
        return Unserved(device, f"On {device.name} nothing fits: {error}")


def _best(ground: _Ground, device: Device, space: Space) -> Assigned:
    """The candidate of the least divergence; of two that are equal, the smaller."""
    run = ground.run
    found = [_Candidate(choice, measured, measured.nats_per_token) for choice, measured in _measured(ground, device, space)]
    solved = _optimum(ground, device, space)
    if all((candidate.choice != solved).any() for candidate in found):
        guess = ground.foretell(run.summed(solved))
        found.append(_Candidate(solved, guess, guess.nats_per_token))
    best = min(found, key=lambda candidate: (candidate.nats, run.prices.space.total_bytes(candidate.choice)))
    return Assigned(device, _plan(run, device, best), best.choice, ground.use(device, best.choice), ground.rate(device, best.choice))


@dataclass(frozen=True, eq=False)
class _Candidate:
    choice: Choice
    known: Measurement | Foretold
    nats: float


def _measured(ground: _Ground, device: Device, space: Space) -> Iterator[tuple[Choice, Measurement]]:
    """The measured choices that the device can serve."""
    avoided = set(device.avoid)
    for measurement in ground.run.measurements.values():
        choice = np.array(measurement.choice)
        if not avoided & {space.formats[i].name for i in choice} and ground.serves(device, choice):
            yield choice, measurement


def _optimum(ground: _Ground, device: Device, space: Space) -> Choice:
    """The exact optimum of the table within the device's memory; where that is too slow, within the largest size that is fast enough."""
    table, memory = ground.run.prices.table, ground.anatomy.file_bytes(serving_of(device), memory_bytes=device.usable_bytes)
    low, high = space.total_bytes(space.smallest()), min(memory, space.total_bytes(space.largest()))
    best = solve(space, table, 8 * high).choice
    if ground.serves(device, best):
        return best
    best = space.smallest()
    for _ in range(_BISECTIONS):
        middle = (low + high) // 2
        found = solve(space, table, 8 * middle).choice
        if ground.serves(device, found):
            best, low = found, middle
        else:
            high = middle
    return best


def _plan(run: Run, device: Device, best: _Candidate) -> Plan:
    limit = f"{device.name}: {device.usable_bytes / _MEBIBYTE:,.0f} MiB at {device.context} × {device.sequences} tokens"
    if isinstance(best.known, Measurement):
        return make_plan(run, budget=limit, strategy="fleet, measured", measurement=best.known)
    text = run.store.text("held-out text")
    promise = Promise(nats_per_token=best.nats, standard_error=best.known.standard_error, basis="predicted", text=text, n_tokens=0)
    return promised_plan(run, best.choice, promise, budget=limit, strategy="fleet, knapsack")


def _what_is_missing(ground: _Ground, device: Device, smallest: Choice) -> str:
    use, rate = ground.use(device, smallest), ground.rate(device, smallest)
    missing = use.total_bytes - device.usable_bytes
    if missing > 0:
        said = f"{missing / _MEBIBYTE:,.1f} MiB are missing of the {use.total_bytes / _MEBIBYTE:,.1f} MiB that the smallest file takes here"
    else:
        said = f"the smallest file decodes {rate:,.2f} tokens/s at most and {device.least_tokens_per_second:g} are wanted"
    ways = list(_ways_out(ground, device))
    way = f"it fits with {', or with '.join(ways)}" if ways else "no context, cache or format makes it fit: give a smaller model"
    return f"On {device.name} {said}; {way}."


def _ways_out(ground: _Ground, device: Device) -> Iterator[str]:
    """What would make the smallest file fit, one thing changed at a time."""
    n_cells = _longest(ground, device)
    if n_cells:
        yield f"a context of {n_cells:,}"
    if device.sequences > 1 and ground.served_at_all(replace(device, sequences=1)):
        yield "one sequence at a time"
    for keys, values in _COARSER_CACHES:
        if ground.served_at_all(replace(device, cache=(keys, values))):
            yield f"a cache in {keys}"
            break
    if device.avoid and ground.served_at_all(replace(device, avoid=())):
        yield f"{', '.join(device.avoid)}, which the device avoids"


def _longest(ground: _Ground, device: Device) -> int:
    """The longest context that fits, in whole steps of the cache; 0 where none does."""
    low, high = 0, device.context // _CELLS
    while low < high:
        middle = (low + high + 1) // 2
        if ground.served_at_all(replace(device, context=_CELLS * middle)):
            low = middle
        else:
            high = middle - 1
    return _CELLS * low
