"""Bytes of weights read by one decode step, which bound its speed on a device limited by memory bandwidth.

    Σ over units of bytes · reads per token + the bytes of tensors that no choice changes

A dense tensor is read once per token. An expert that is a unit is read as often as the router chooses it on the calibration text (`routing.py`); a
stack of n experts, of which a token uses k, is read k / n times. An embedding that is not also the output head counts as 0, since only one row is
looked up. The header of the file is not read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Source
from bitwright.devices import Device, Latency
from bitwright.errors import ObjectiveError
from bitwright.objectives.cost import Cost, CostObjective
from bitwright.objectives.text.routing import NO_ROUTING, Routing
from bitwright.spaces import DROP, Choice, Space, Tensor, expert_of, role_of, weight_space

_EMBEDDING, _HEAD = "token_embd", "output"


@dataclass(frozen=True, eq=False)
class Reading:
    """Weights read per token: `shares` `(n_units,)`, the mean number of reads of each unit of `space`, and `fixed_bytes` for all other tensors."""

    space: Space
    shares: NDArray[np.float64]
    fixed_bytes: float
    routing: Routing

    def read_bytes(self, choice: Choice) -> float:
        """Return the mean bytes of weights read per token. Tokens of dropped experts go to the remaining ones, in proportion to their frequency."""
        dropped = {(unit.layer, unit.expert) for unit, f in zip(self.space.units, choice, strict=True) if self.space.formats[f] == DROP}
        shares = self.shares
        if dropped:
            frequencies = _frequencies(self.routing, dropped)
            shares = np.array([frequencies.get((unit.layer, unit.expert), share) for unit, share in zip(self.space.units, shares, strict=True)])
        return float((self.space.size_bits[np.arange(len(choice)), choice] / 8) @ shares) + self.fixed_bytes

    def active_bytes(self) -> Cost:
        """Return the bytes read per token as a sum over units.

        Raises:
            ObjectiveError: experts may be dropped, so that the bytes of one depend on which others remain.
        """
        if DROP in self.space.formats and self.space.offered[:, self.space.formats.index(DROP)].any():
            raise ObjectiveError(
                f"{CostObjective.ACTIVE_BYTES} must be a sum over units; this run may drop experts, after which the remaining ones are read more "
                "often: leave experts out of --structure."
            )
        return Cost(CostObjective.ACTIVE_BYTES, self.space.size_bits / 8 * self.shares[:, None], self.fixed_bytes)

    def seconds(self, device: Device, *, cache_bytes: int) -> Cost:
        """Return the seconds of one decode step, in which every sequence gains a token.

        Weights of a format are read at the rate measured for that format where the device was profiled, else at its effective bandwidth. Tensors that
        no choice changes and a full KV cache of `cache_bytes` are read at that bandwidth; where the space chooses cache types, its own sizes count.

        Raises:
            ObjectiveError: the device was profiled, but not with every format that is offered; see also `active_bytes`.
        """
        read, n_weights = self.active_bytes(), len(weight_space(self.space).units)
        offered = np.flatnonzero(weight_space(self.space).offered.any(axis=0))
        rates = step_rates(device, [self.space.formats[f].name for f in offered])
        table = read.table * np.array([rates.of(form.name) for form in self.space.formats])
        table[n_weights:] = read.table[n_weights:] * rates.by_bandwidth
        return Cost(CostObjective.SECONDS, table, (read.fixed + cache_bytes) * rates.by_bandwidth + rates.per_step)


@dataclass(frozen=True)
class StepRates:
    """Seconds of a decode step by what it reads: `by_format` for a byte of a matrix that a choice gives a format, None where no format was timed,
    `by_bandwidth` for a byte of anything else, and `per_step` besides.
    """

    by_format: Mapping[str, float] | None
    by_bandwidth: float
    per_step: float

    def of(self, form: str) -> float:
        """Return the seconds for a byte of a matrix in the format named, NaN where it was not timed and others were."""
        return self.by_bandwidth if self.by_format is None else self.by_format.get(form, np.nan)


def step_rates(device: Device, formats: Iterable[str]) -> StepRates:
    """Return the rates of a device, timed or by its bandwidth.

    Raises:
        ObjectiveError: the device was profiled, but not with each of the `formats`.
    """
    by_bandwidth = device.seconds_per_token(1)
    if not isinstance(device.latency, Latency):
        return StepRates(None, by_bandwidth, 0.0)
    known = device.latency.seconds_per_byte
    unknown = [form for form in formats if form not in known]
    if unknown:
        raise ObjectiveError(
            f"A profiled device must have a measured rate for every offered format; {device.name} has none for {', '.join(unknown)}: "
            "measure them with `bitwright profile`, or list them under `avoid`."
        )
    return StepRates(known, by_bandwidth, device.latency.seconds_per_step)


def reading(space: Space, source: Source, routing: Routing) -> Reading:
    """Count the weights read per token of the model of `source`, whose tensors are those that the target of `space` holds.

    Raises:
        ModelError: its metadata does not say how many experts a token uses.
    """
    frequency = ReadShares(source, routing)
    decided = {tensor.name for unit in space.units for tensor in unit.tensors}
    shares = np.array([frequency.mean(unit.tensors) for unit in space.units])
    fixed = sum(frequency.mean([tensor]) * source.stored_bytes(tensor) for tensor in source.tensors if tensor.name not in decided)
    return Reading(space, shares, fixed, routing)


def tensor_read_shares(source: Source) -> dict[str, float]:
    """Return the reads per token of each tensor of a model by name, taking all experts as equally frequent.

    Raises:
        ModelError: its metadata does not say how many experts a token uses.
    """
    frequency = ReadShares(source, NO_ROUTING)
    return {tensor.name: frequency.mean([tensor]) for tensor in source.tensors}


class ReadShares:
    """Reads per token of tensors of a model; the `routing` is that of experts that are tensors of their own.

    Raises:
        ModelError: its metadata does not say how many experts a token uses.
    """

    def __init__(self, source: Source, routing: Routing) -> None:
        roles = {role_of(tensor): tensor.name for tensor in source.tensors}
        self._looked_up = {roles[_EMBEDDING]} if _EMBEDDING in roles and _HEAD in roles else set()
        self._by_expert = _frequencies(routing, set())
        self._n_used = source.n_experts_used if any(_is_stack(tensor) for tensor in source.tensors) else 1

    def mean(self, tensors: Iterable[Tensor]) -> float:
        """Return the mean reads per token over the weights of `tensors`."""
        known = [(self.of(tensor), tensor.n_weights) for tensor in tensors]
        return sum(share * n_weights for share, n_weights in known) / sum(n_weights for _, n_weights in known)

    def of(self, tensor: Tensor) -> float:
        """Return the mean reads per token of a tensor; a stack of fewer experts than the model's is read more often."""
        if _is_stack(tensor):
            return self._n_used / tensor.shape[0]
        return 0.0 if tensor.name in self._looked_up else self._by_expert.get(expert_of(tensor.name), 1.0)


def _is_stack(tensor: Tensor) -> bool:
    """Return whether a tensor stacks the experts of a layer; the heads of latent attention have three dimensions too."""
    return len(tensor.shape) == 3 and role_of(tensor).endswith("_exps")


def _frequencies(routing: Routing, dropped: set[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Return the routing frequency of each expert by (layer, index); tokens of `dropped` experts go to the others of the layer in proportion."""
    experts = list(zip(routing.layer.tolist(), routing.expert.tolist(), strict=True))
    remains = np.array([expert not in dropped for expert in experts], dtype=np.bool_)
    shares = routing.shares(np.where(remains, routing.n_chosen, 0)) * routing.n_at_once
    return dict(zip(experts, shares.tolist(), strict=True))
