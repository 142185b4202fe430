"""What a decode step reads, which its speed hangs on: of a mixture the experts that the token is sent to, of an embedding that is no head one row.

    Σ over units of their bytes · how often a token reads them + the tensors that no choice changes

An expert that is a unit is read as often as a text chooses it (`routing.py`), one of a stack of n as often as the k that a token uses: k / n. The
header of a file is not read, nor is the rest of an embedding that is looked up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Source, dimensions
from bitwright.devices import Device, Latency
from bitwright.errors import ObjectiveError
from bitwright.objectives.cost import Cost, CostObjective
from bitwright.objectives.text.routing import NO_ROUTING, Routing
from bitwright.spaces import DROP, Choice, Space, Tensor, expert_of, of_weights, role

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True, eq=False)
class Reading:
    """What a token reads of a model: of the units of `space` the `shares` `(n_units,)`, and `fixed_bytes` of the tensors that are no units."""

    space: Space
    shares: NDArray[np.float64]
    fixed_bytes: float
    routing: Routing

    def read_bytes(self, choice: Choice) -> float:
        """Bytes of weights that the step of one token reads on average. Experts that are left share the choices of those that are dropped."""
        gone = {(unit.layer, unit.expert) for unit, f in zip(self.space.units, choice, strict=True) if self.space.formats[f] == DROP}
        shares = self.shares
        if gone:
            often = _frequencies(self.routing, gone)
            shares = np.array([often.get((unit.layer, unit.expert), share) for unit, share in zip(self.space.units, shares, strict=True)])
        return float((self.space.size_bits[np.arange(len(choice)), choice] / 8) @ shares) + self.fixed_bytes

    def active_bytes(self) -> Cost:
        """The same as a cost.

        Raises:
            ObjectiveError: experts may be dropped, so that what one costs depends on which others are left.
        """
        if DROP in self.space.formats and self.space.offered[:, self.space.formats.index(DROP)].any():
            raise ObjectiveError(
                f"{CostObjective.ACTIVE_BYTES} is a sum over units where experts stay; this run may drop them, and those that are left are read more "
                "often: search without DROP."
            )
        return Cost(CostObjective.ACTIVE_BYTES, self.space.size_bits / 8 * self.shares[:, None], self.fixed_bytes)

    def seconds(self, device: Device, *, cache_bytes: int) -> Cost:
        """Seconds that decoding one token of each sequence takes: each format's bytes at the rate that the device was timed with, where it was, else
        at the bandwidth that it reaches; what no choice changes, and a full cache, at that bandwidth: `cache_bytes`, or the space's own where it
        decides about them.

        Raises:
            ObjectiveError: the device was timed, but not with every format that is offered; see also `active_bytes`.
        """
        read, by_bandwidth = self.active_bytes(), device.seconds_per_token(1)
        per_byte, per_step = np.full(len(self.space.formats), by_bandwidth), 0.0
        if isinstance(device.latency, Latency):
            per_byte = np.array([device.latency.seconds_per_byte.get(form.name, np.nan) for form in self.space.formats])
            per_step = device.latency.seconds_per_step
            offered = of_weights(self.space).offered
            unknown = [form.name for i, form in enumerate(self.space.formats) if np.isnan(per_byte[i]) and offered[:, i].any()]
            if unknown:
                raise ObjectiveError(
                    f"A device that was timed must have a rate for every format that is offered; {device.name} has none for {', '.join(unknown)}: "
                    "time them with `bitwright profile`, or name them under `avoid`."
                )
        table, n_weights = read.table * per_byte, len(of_weights(self.space).units)
        table[n_weights:] = read.table[n_weights:] * by_bandwidth
        return Cost(CostObjective.SECONDS, table, (read.fixed + cache_bytes) * by_bandwidth + per_step)


def reading(space: Space, source: Source, routing: Routing) -> Reading:
    """What a token reads of the model of `source`, whose tensors are those that the target of `space` holds.

    Raises:
        ModelError: its metadata does not say how many experts a token uses.
    """
    share = _Shares(source, routing)
    decided = {tensor.name for unit in space.units for tensor in unit.tensors}
    shares = np.array([share.of(unit.tensors) for unit in space.units])
    fixed = sum(share.of([tensor]) * source.stored_bytes(tensor) for tensor in source.tensors if tensor.name not in decided)
    return Reading(space, shares, fixed, routing)


def shares_read(source: Source) -> dict[str, float]:
    """How often a token reads each tensor of a model by its name, whose experts are chosen alike.

    Raises:
        ModelError: its metadata does not say how many experts a token uses.
    """
    share = _Shares(source, NO_ROUTING)
    return {tensor.name: share.of([tensor]) for tensor in source.tensors}


class _Shares:
    """How often a token reads a tensor."""

    def __init__(self, source: Source, routing: Routing) -> None:
        self._looked_up = {_EMBEDDING} if any(tensor.name == _HEAD for tensor in source.tensors) else set()
        self._often = _frequencies(routing, set())
        self._n_used = dimensions(source).n_used if any(_is_stack(tensor) for tensor in source.tensors) else 1

    def of(self, tensors: Iterable[Tensor]) -> float:
        """The share of all weights of `tensors` that is read."""
        known = [(self._share(tensor), tensor.n_weights) for tensor in tensors]
        return sum(share * n_weights for share, n_weights in known) / sum(n_weights for _, n_weights in known)

    def _share(self, tensor: Tensor) -> float:
        if _is_stack(tensor):
            return self._n_used / tensor.shape[0]
        return 0.0 if tensor.name in self._looked_up else self._often.get(expert_of(tensor.name), 1.0)


def _is_stack(tensor: Tensor) -> bool:
    """Whether it holds the experts of a layer; the heads of latent attention have three dimensions too."""
    return len(tensor.shape) == 3 and role(tensor.name).endswith("_exps")


def _frequencies(routing: Routing, gone: set[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """How often a token is sent to each expert, by layer and index, where those that are `gone` leave their choices to the others in proportion."""
    experts = list(zip(routing.layer.tolist(), routing.expert.tolist(), strict=True))
    left = np.array([expert not in gone for expert in experts], dtype=np.bool_)
    shares = routing.shares(np.where(left, routing.n_chosen, 0)) * routing.n_at_once
    return dict(zip(experts, shares.tolist(), strict=True))
