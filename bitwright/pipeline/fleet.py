"""Plan a run for several devices, from its stored measurements, without loading the model or measuring anything.

For each device, the memory left beside its context, sequences and KV cache is the budget, and its least speed a ceiling on the seconds per token.
Candidates are the run's measured choices within both, and the exact optimum of the table, whose divergence is predicted from the measured ones. The
candidate with the least divergence wins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitwright.devices import Device
from bitwright.engines import MemoryUse, memory_model_named, profile_named
from bitwright.errors import UserError
from bitwright.objectives import Measurement
from bitwright.pipeline.planning.candidates import make_plan, promised_plan
from bitwright.pipeline.planning.cost_limits import CostLimit
from bitwright.pipeline.planning.costs import Costs, costs_of, serving_of
from bitwright.pipeline.planning.origins import KNAPSACK, origin
from bitwright.pipeline.planning.size_limits import narrowed_to, within_memory
from bitwright.pipeline.pricing.link import Link, PredictedDivergence, link_of
from bitwright.pipeline.run import Run
from bitwright.search import Row, solve, solve_with_rows
from bitwright.spaces import (
    DEFAULT_CACHE,
    CacheTypes,
    Choice,
    Plan,
    PlannedDivergence,
    Space,
    chosen_cache,
    file_bytes,
    has_cache,
    weight_space,
    without_cache,
)

_MEBIBYTE = 2**20
_SOLVER_SECONDS = 10.0
_COARSER_CACHES = (CacheTypes("Q8_0", "Q8_0"), CacheTypes("Q4_0", "Q4_0"))
_CELLS = 256


@dataclass(frozen=True, eq=False)
class DevicePlan:
    """Device with its plan, the memory that serving it uses, and the tokens per second of each sequence that bandwidth allows."""

    device: Device
    plan: Plan
    choice: Choice
    memory: MemoryUse
    tokens_per_second: float


@dataclass(frozen=True)
class DeviceWithoutPlan:
    """Device on which no plan fits, with a sentence on what is missing and what would make one fit."""

    device: Device
    reason: str


@dataclass(frozen=True, eq=False)
class Fleet:
    """Devices with their plans, in the given order."""

    run: Run
    rows: tuple[DevicePlan | DeviceWithoutPlan, ...]

    @property
    def assigned(self) -> tuple[DevicePlan, ...]:
        """The devices that have a plan."""
        return tuple(row for row in self.rows if isinstance(row, DevicePlan))


@dataclass(frozen=True, eq=False)
class _Post:
    """Device with the costs of the run's choices on it: the `space` it can run, the bytes left for the file (for file and KV cache if the run chooses
    both), and the limit on seconds per token.
    """

    device: Device
    costs: Costs
    space: Space
    room_bytes: int
    limit: CostLimit

    @property
    def rows(self) -> tuple[Row, ...]:
        return (self.limit.row,) if self.device.least_tokens_per_second else ()

    def use(self, choice: Choice) -> MemoryUse:
        serving = serving_of(self.device, chosen_cache(self.space, choice))
        return self.costs.anatomy.use(serving, file_bytes=file_bytes(self.space, choice))

    def rate(self, choice: Choice) -> float:
        return 1 / float(self.limit.cost.of(choice))

    def serves(self, choice: Choice) -> bool:
        """Return whether a choice fits the device's memory and is fast enough."""
        return self.space.total_bytes(choice) <= self.room_bytes and self.limit.keeps(choice)

    def fastest(self) -> Choice:
        """Return the fastest choice that fits the memory, or the smallest file if none fits."""
        if self.space.total_bytes(self.space.smallest()) > self.room_bytes:
            return self.space.smallest()
        return solve(self.space, self.limit.cost.table, 8 * self.room_bytes).choice


def plan_fleet(run: Run, devices: Sequence[Device]) -> Fleet:
    """Return the best plan of a run for each device, with the rounding of the search and without steps.

    Raises:
        UserError: there is no memory model for the run's target, or its model cannot be opened.
    """
    memory_model_named(run.settings.target)  # raises before the model is opened
    run = replace(run, settings=replace(run.settings, steps=()))  # steps would have to be measured with every plan
    costs, link = costs_of(run), link_of(run)
    return Fleet(run, tuple(_row(costs, link, device) for device in devices))


def _post(costs: Costs, device: Device) -> _Post:
    """Return a device with the costs of choices on it.

    Raises:
        UserError: a format to avoid does not exist, the context or KV cache is not possible, or a format has no rate.
    """
    space, room = _runnable(costs.run, device), costs.anatomy.file_bytes(serving_of(device), memory_bytes=device.usable_bytes)
    if has_cache(space):
        plain = serving_of(replace(device, cache=DEFAULT_CACHE))
        space, room = within_memory(space, costs.anatomy, plain, memory_bytes=device.usable_bytes)
    at_most = 1 / device.least_tokens_per_second if device.least_tokens_per_second else np.inf
    return _Post(device, costs, space, room, CostLimit(costs.seconds(device, space), at_most))


def _runnable(run: Run, device: Device) -> Space:
    """Return the run's space without the formats that the device avoids, and with the KV cache types that it names, if any. A unit left without an
    offered format gets the quantized formats that the device does not avoid, or failing that its offered ones.

    Raises:
        UserError: a format to avoid does not exist, or the run has not measured the KV cache types.
    """
    space, tried = narrowed_to(run.space, device.cache), run.tried
    avoided, n_weights = {profile_named(device.engine, "").format(name).name for name in device.avoid}, len(weight_space(space).units)
    runs = np.array([[u >= n_weights or form.name not in avoided for form in space.formats] for u in range(len(space.units))])
    offered = np.where((space.offered & runs).any(axis=1, keepdims=True), space.offered & runs, tried & runs)
    return replace(space, offered=np.where(offered.any(axis=1, keepdims=True), offered, space.offered))


def _row(costs: Costs, link: Link, device: Device) -> DevicePlan | DeviceWithoutPlan:
    try:
        post = _post(costs, device)
        fastest = post.fastest()
        return _best(post, link) if post.serves(fastest) else DeviceWithoutPlan(device, _what_is_missing(post, fastest))
    except UserError as error:
        return DeviceWithoutPlan(device, f"On {device.name} nothing fits: {error}")


def _best(post: _Post, link: Link) -> DevicePlan:
    """Return the candidate with the least divergence; ties go to the smaller file."""
    run, device = post.costs.run, post.device
    found = [_Candidate(choice, measured, measured.nats_per_token) for choice, measured in _measured(post)]
    solved = _optimum(post)
    if all((candidate.choice != solved).any() for candidate in found):
        predicted = link(run.summed(solved))
        found.append(_Candidate(solved, predicted, predicted.nats_per_token))
    best = min(found, key=lambda candidate: (candidate.nats, post.space.total_bytes(candidate.choice)))
    return DevicePlan(device, _plan(run, device, best), best.choice, post.use(best.choice), post.rate(best.choice))


@dataclass(frozen=True, eq=False)
class _Candidate:
    choice: Choice
    known: Measurement | PredictedDivergence
    nats: float


def _measured(post: _Post) -> Iterator[tuple[Choice, Measurement]]:
    """Yield the measured choices that the device can serve."""
    avoided = set(post.device.avoid)
    for measurement in post.costs.run.measurements.values():
        choice = np.array(measurement.choice)
        named = {post.space.formats[i].name for i in without_cache(post.space, choice)}
        if not avoided & named and _keeps_cache(post, choice) and post.serves(choice):
            yield choice, measurement


def _keeps_cache(post: _Post, choice: Choice) -> bool:
    """Return whether a choice has the KV cache types that the device names, if it names any."""
    named = isinstance(post.device.cache, CacheTypes) and has_cache(post.space)
    return not named or chosen_cache(post.space, choice) == post.device.cache


def _optimum(post: _Post) -> Choice:
    """Return the exact optimum of the table within the device's memory and least speed."""
    largest = min(post.room_bytes, post.space.total_bytes(post.space.largest()))
    return solve_with_rows(post.space, post.costs.run.table, 8 * largest, rows=post.rows, limit_seconds=_SOLVER_SECONDS).choice


def _plan(run: Run, device: Device, best: _Candidate) -> Plan:
    limit = f"{device.name}: {device.usable_bytes / _MEBIBYTE:,.0f} MiB at {device.context} × {device.sequences} tokens"
    cache = device.cache if isinstance(device.cache, CacheTypes) else DEFAULT_CACHE
    if isinstance(best.known, Measurement):
        return make_plan(run, budget=limit, strategy="fleet, measured", measurement=best.known, cache=cache, by=origin(run, "", best.choice))
    text = run.store.text("held-out text")
    promise = PlannedDivergence(nats_per_token=best.nats, standard_error=best.known.standard_error, basis="predicted", text=text, n_tokens=0)
    return promised_plan(run, best.choice, promise, budget=limit, strategy="fleet, knapsack", cache=cache, by=origin(run, KNAPSACK, best.choice))


def _what_is_missing(post: _Post, fastest: Choice) -> str:
    device, use = post.device, post.use(fastest)
    missing = use.total_bytes - device.usable_bytes
    if missing > 0:
        said = f"{missing / _MEBIBYTE:,.1f} MiB are missing of the {use.total_bytes / _MEBIBYTE:,.1f} MiB that the smallest file takes here"
    else:
        said = f"the fastest plan decodes {post.rate(fastest):,.2f} tokens/s at most and {device.least_tokens_per_second:g} are wanted"
    ways = list(_ways_out(post.costs, device))
    way = f"it fits with {', or with '.join(ways)}" if ways else "no context, cache or format makes it fit: give a smaller model"
    return f"On {device.name} {said}; {way}."


def _ways_out(costs: Costs, device: Device) -> Iterator[str]:
    """Yield the single changes that would make the fastest plan fit."""
    n_cells = _longest(costs, device)
    if n_cells:
        yield f"a context of {n_cells:,}"
    if device.sequences > 1 and _served_at_all(costs, replace(device, sequences=1)):
        yield "one sequence at a time"
    for coarser in _COARSER_CACHES:
        if _served_at_all(costs, replace(device, cache=coarser)):
            yield f"a KV cache in {coarser}"
            break
    if device.avoid and _served_at_all(costs, replace(device, avoid=())):
        yield f"{', '.join(device.avoid)}, which the device avoids"


def _served_at_all(costs: Costs, device: Device) -> bool:
    try:
        post = _post(costs, device)
        return post.serves(post.fastest())
    except UserError:
        return False


def _longest(costs: Costs, device: Device) -> int:
    """Return the longest context that fits, a multiple of 256 tokens; 0 if none does."""
    low, high = 0, device.context // _CELLS
    while low < high:
        middle = (low + high + 1) // 2
        if _served_at_all(costs, replace(device, context=_CELLS * middle)):
            low = middle
        else:
            high = middle - 1
    return _CELLS * low
