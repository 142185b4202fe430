"""Options of the blocks of a model: how much of attention and of the feed-forward part is kept, and the formats of what is kept.

The loss of a format is that of the run's table, scaled to the divergence that was measured at the operating point, times the share of the part that
is kept: of the groups of heads, or of the energy of the channels; fewer experts do not change it, since a token is sent to as many. The loss of
taking away was measured there, one part at a time, and is interpolated between measured widths over the energy that is taken away. Where decoding
has a ceiling, a second costs a price in nats, which is part of the loss of an option: of its tensors and its cache, counted as those of a plan are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import is_of_experts
from bitwright.engines import Engine
from bitwright.pipeline.planning.structured_seconds import CountedSeconds
from bitwright.search import Options, combined, either, nondominated_of, one_decision
from bitwright.spaces import Choice, Space, Structure, StructureKind, Tensor, block_of, channel_step, expert_of, role_of

_SMALLEST = 0.5  # share of the channels that are kept at least
_ATTENTION = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")


@dataclass(frozen=True, eq=False)
class StructurePrices:
    """Nats/token of taking away, by block: attention by the number of groups that are kept, the feed-forward part by the number of channels, and the
    whole block. `shares` are the shares of energy that the first channels of a block give, `(n_channels + 1,)`. `experts` are the prices of keeping
    some experts, the first of `by_worth`; both are empty where none are taken away.
    """

    groups: tuple[Mapping[int, float], ...]
    channels: tuple[Mapping[int, float], ...]
    blocks: Mapping[int, float]
    shares: tuple[NDArray[np.float64], ...]
    experts: tuple[Mapping[int, float], ...] = ()
    by_worth: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of_one(cls, kept: Structure, shares: tuple[NDArray[np.float64], ...]) -> "StructurePrices":
        """Return the prices of a structure that is given: nothing, and no other is offered."""
        experts = tuple({len(of_block): 0.0} for of_block in kept.experts)
        groups, channels = ([{n: 0.0} for n in of_blocks] for of_blocks in (kept.head_groups, kept.channels))
        return cls(tuple(groups), tuple(channels), {}, shares, experts, kept.experts)

    def of_channels(self, layer: int, kept: int) -> float:
        """Return the loss of keeping so many channels, interpolated over the energy that is taken away."""
        known = sorted((1 - float(self.shares[layer][n]), nats) for n, nats in self.channels[layer].items())
        return float(np.interp(1 - self.shares[layer][kept], [taken for taken, _ in known], [nats for _, nats in known]))


def widths(n_channels: int) -> list[int]:
    """Return the numbers of channels that may be kept, all of them first: multiples of 256 where there are many, else of 32."""
    step = channel_step(n_channels)
    first = max(step, -(-int(_SMALLEST * n_channels) // step) * step)
    return [n_channels, *(n for n in range((n_channels - 1) // step * step, first - 1, -step))]


def group_numbers(n_groups: int, kinds: Sequence[StructureKind]) -> list[int]:
    """Return the numbers of groups of heads that may be kept, all of them first."""
    return [n_groups, *(range(n_groups - 1, 0, -1) if "heads" in kinds else ()), *([0] if "attention" in kinds else ())]


def expert_numbers(n_experts: int, n_used: int) -> list[int]:
    """Return the numbers of experts that may be kept in every block, all of them first: down to half, or as many as a token is sent to."""
    return [n_experts, *range(n_experts - (step := -(-n_experts // 8)), max(n_used, n_experts // 2) - 1, -step)]


@dataclass(frozen=True, eq=False)
class BlockOptions:
    """Maker of the options of blocks, by a `table` `(n_units, n_formats)` in nats/token for the units of `space`, which has none for the cache.

    `fixed` are the tensors that are in no unit, and `cache_bits` those of a group of heads of a block. Matrices of the roles `joined` of a block have
    one format. Picks are the formats of a block's units, then its groups of heads and its channels. `n_experts` experts are kept in every block, all
    where it is 0. `spanning` are the formats of the units that have matrices in several blocks, each of which takes and loses its share with them.
    A second of decoding, by `seconds`, costs `second_price` nats/token; there is none where decoding has no ceiling.
    """

    engine: Engine
    space: Space
    table: NDArray[np.float64]
    fixed: tuple[Tensor, ...]
    whole: Structure
    prices: StructurePrices
    cache_bits: int
    joined: tuple[str, ...] = ()
    n_experts: int = 0
    spanning: Mapping[int, int] = field(default_factory=dict)
    seconds: CountedSeconds | None = None
    second_price: float = 0.0

    def given(self, kept: Structure) -> "BlockOptions":
        """Return the same with a structure that is given, which keeps as many experts in every block that is left or all."""
        n_experts = max((len(of_block) for of_block in kept.experts), default=0) if kept.dropped(self.whole) else 0
        return replace(self, prices=StructurePrices.of_one(kept, self.prices.shares), n_experts=n_experts)

    def by_spanning(self) -> "list[BlockOptions]":
        """Return the same with each combination of the formats of units that have matrices in several blocks, one where there are none."""
        units = [u for u, unit in enumerate(self.space.units) if unit.layer < 0 and any(block_of(tensor.name) for tensor in unit.tensors)]
        offered = (np.flatnonzero(self.space.offered[u]).tolist() for u in units)
        return [replace(self, spanning=dict(zip(units, picked, strict=True))) for picked in product(*offered)]

    def groups(self, dearer: float) -> list[Options]:
        """Return the options of every block, then those of every unit outside the blocks, with the prices of taking away times `dearer`."""
        outside = [u for u, unit in enumerate(self.space.units) if unit.layer < 0]
        return [*(self._block(layer, dearer) for layer in range(self.whole.n_layers)), *(self._unit(u) for u in outside)]

    def chosen(self, picks: Sequence[NDArray[np.int64]]) -> tuple[Choice, Structure]:
        """Return the formats of all units and the structure of the picks of `groups`."""
        choice, kept = self.space.smallest(), list[tuple[int, int]]()
        outside = [u for u, unit in enumerate(self.space.units) if unit.layer < 0]
        for layer, picked in enumerate(picks[: self.whole.n_layers]):
            choice[self._units(layer, attention=True) + self._units(layer, attention=False)] = picked[:-2]
            kept.append((int(picked[-2]), int(picked[-1])))
        for u, picked in zip(outside, picks[self.whole.n_layers :], strict=True):
            choice[u] = picked[0]
        structure = Structure(tuple(groups for groups, _ in kept), tuple(channels for _, channels in kept), self._experts())
        return choice, structure.without(structure.gone)

    def _experts(self) -> tuple[tuple[int, ...], ...]:
        if not self.n_experts:
            return self.whole.experts
        return tuple(tuple(sorted(of_block[: self.n_experts])) for of_block in self.prices.by_worth)

    def fixed_bits(self) -> int:
        """Return the bits that no block has: of the file's header and the tensors outside that no choice changes."""
        return self.space.fixed_bits - sum(self._bits(tensor) for tensor in self.fixed if block_of(tensor.name))

    def fixed_seconds(self) -> float:
        """Return the seconds that no option has: for each step, and of the tensors outside the blocks that no choice changes; 0 without a ceiling."""
        if self.seconds is None:
            return 0.0
        return self.seconds.besides + sum(self._undecided_seconds(tensor) for tensor in self.fixed if not block_of(tensor.name))

    def _units(self, layer: int, *, attention: bool) -> list[int]:
        units = enumerate(self.space.units)
        return [u for u, unit in units if unit.layer == layer and _is_attention(unit.tensors[0]) == attention]

    def _unit(self, u: int) -> Options:
        offered = np.flatnonzero(self.space.offered[u])
        if u in self.spanning:
            return Options(np.zeros(1, dtype=np.int64), np.zeros(1), np.array([[self.spanning[u]]]))
        loss = self.table[u, offered] + self.second_price * self._matrix_seconds(self.space.units[u].tensors, offered.tolist())
        return one_decision(self.space.size_bits[u, offered], loss, offered)

    def _block(self, layer: int, dearer: float) -> Options:
        prices, full = self.prices, (self.whole.head_groups[layer], self.whole.channels[layer])
        attention = [
            part.plus(bits=n * self.cache_bits, loss=dearer * nats + self._cache_price(n))
            for n, nats in prices.groups[layer].items()
            for part in self._part(layer, n, attention=True, share=n / full[0], kept=n / full[0])
        ]
        shares = prices.shares[layer]
        feed_forward = [
            part.plus(bits=0, loss=dearer * prices.of_channels(layer, n))
            for n in (widths(full[1]) if len(prices.channels[layer]) > 1 else prices.channels[layer])
            for part in self._part(layer, n, attention=False, share=float(shares[n]), kept=n / full[1])
        ]
        whole = combined(either(*attention), either(*feed_forward))
        whole = whole.plus(bits=0, loss=dearer * prices.experts[layer][self.n_experts]) if self.n_experts else whole
        for u, form in self.spanning.items():
            of_unit = self.space.units[u].tensors
            within = [self._kept(tensor, 1) for tensor in of_unit if expert_of(tensor.name)[0] == layer]
            bits = sum(8 * self.engine.target.stored_bytes(tensor.shape, self.space.formats[form]) for tensor in within)
            price = self.second_price * float(self._matrix_seconds(within, [form])[0])
            whole = whole.plus(bits=bits, loss=float(self.table[u, form]) * len(within) / len(of_unit) + price)
        n_attention = len(self._units(layer, attention=True))
        order = [*range(n_attention), *range(n_attention + 1, whole.picks.shape[1] - 1), n_attention, whole.picks.shape[1] - 1]
        whole = Options(whole.bits, whole.loss, whole.picks[:, order])
        if layer not in prices.blocks:
            return whole
        none = np.append(self.space.smallest()[self._units(layer, attention=True) + self._units(layer, attention=False)], [0, 0])
        return either(whole, Options(np.zeros(1, dtype=np.int64), np.array([dearer * prices.blocks[layer]]), none[None]))

    def _part(self, layer: int, n: int, *, attention: bool, share: float, kept: float) -> list[Options]:
        """Return the options of a part of a block of which `n` groups or channels are kept, none where no format stores them."""
        units, number = self._units(layer, attention=attention), one_decision(np.zeros(1, dtype=np.int64), np.zeros(1), np.array([n]))
        if not n:
            smallest = Options(np.zeros(1, dtype=np.int64), np.zeros(1), self.space.smallest()[units][None])
            return [combined(smallest, number)]
        made = self._formats(units, kept=kept, share=share)
        if made is None:
            return []
        fixed = [t for t in self.fixed if block_of(t.name).endswith(f".{layer}") and _is_attention(t) == attention]
        left = [self._kept(tensor, kept) for tensor in fixed]
        price = self.second_price * sum(self._undecided_seconds(tensor) for tensor in left)
        return [combined(made, number).plus(bits=sum(self._bits(tensor) for tensor in left), loss=price)]

    def _formats(self, units: Sequence[int], *, kept: float, share: float) -> Options | None:
        """Return the options of the units of a part that is kept in part, picks in their order, None where no format stores one of them."""
        if not units:
            return Options(np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros((1, 0), dtype=np.int64))
        joined = [u for u in units if _role(self.space.units[u].tensors[0]) in self.joined]
        groups = [*([u] for u in units if u not in joined), *([joined] if joined else [])]
        decisions = [self._one_format(group, kept=kept, share=share) for group in groups]
        if any(decision is None for decision in decisions):
            return None
        made = combined(*(decision for decision in decisions if decision is not None))
        return Options(made.bits, made.loss, made.picks[:, np.argsort([u for group in groups for u in group])])

    def _one_format(self, units: Sequence[int], *, kept: float, share: float) -> Options | None:
        """Return the options of units that have one format, of which a part is kept, None where none of their formats stores that."""
        tensors = [self._kept(tensor, kept) for u in units for tensor in self.space.units[u].tensors]
        formats, stored_bytes = self.space.formats, self.engine.target.stored_bytes
        fitting = [
            f for f in np.flatnonzero(self.space.offered[units].all(axis=0)).tolist() if all(formats[f].fits(tensor.shape) for tensor in tensors)
        ]
        if not fitting:
            return None
        bits = np.array([8 * sum(stored_bytes(tensor.shape, formats[f]) for tensor in tensors) for f in fitting], dtype=np.int64)
        loss = share * self.table[units][:, fitting].sum(axis=0) + self.second_price * self._matrix_seconds(tensors, fitting)
        index = np.repeat(np.array(fitting, dtype=np.int64)[:, None], len(units), axis=1)
        return nondominated_of(Options(bits, loss, index))

    def _kept(self, tensor: Tensor, kept: float) -> Tensor:
        """Return a tensor of a part of which the share `kept` of groups or channels is kept, in the shape that it then has."""
        shape = _narrowed(tensor, kept)
        return replace(tensor, shape=(self.n_experts, *shape[1:]) if self.n_experts and is_of_experts(tensor) else shape)

    def _bits(self, tensor: Tensor) -> int:
        return 8 * self.engine.target.stored_bytes(tensor.shape, self.engine.target.format(tensor.stored))

    def _matrix_seconds(self, tensors: Sequence[Tensor], formats: Sequence[int]) -> NDArray[np.float64]:
        """Return the seconds of decoding of tensors in each of some formats, `(n_formats,)`, zeros without a ceiling."""
        counted, stored_bytes = self.seconds, self.engine.target.stored_bytes
        if counted is None:
            return np.zeros(len(formats))
        forms = [self.space.formats[f] for f in formats]
        return np.array([sum(counted.matrix(tensor, stored_bytes(tensor.shape, form), form.name) for tensor in tensors) for form in forms])

    def _undecided_seconds(self, tensor: Tensor) -> float:
        return 0.0 if self.seconds is None else self.seconds.undecided(tensor, self._bits(tensor) // 8)

    def _cache_price(self, n_groups: int) -> float:
        return 0.0 if self.seconds is None else self.second_price * self.seconds.of_groups(n_groups)


def part_weights(tensors: Sequence[Tensor], n_layers: int) -> NDArray[np.int64]:
    """Return the numbers of weights of each block's attention and feed-forward part `(n_layers, 2)`."""
    found = np.zeros((n_layers, 2), dtype=np.int64)
    for tensor in (tensor for tensor in tensors if block_of(tensor.name)):
        found[expert_of(tensor.name)[0], 0 if _is_attention(tensor) else 1] += tensor.n_weights
    return found


def _role(tensor: Tensor) -> str:
    """Return the role of a tensor of a block, of a bias that of its matrix."""
    return role_of(tensor) or tensor.name.split(".")[2]


def _is_attention(tensor: Tensor) -> bool:
    return _role(tensor).startswith(_ATTENTION)


def _narrowed(tensor: Tensor, kept: float) -> tuple[int, ...]:
    """Return the shape of a tensor of a part of which the share `kept` of groups or channels is kept."""
    role = _role(tensor)
    if kept == 1 or "norm" in role:
        return tensor.shape
    if role in ("attn_output", "ffn_down"):
        return (*tensor.shape[:-1], round(tensor.shape[-1] * kept))
    return (round(tensor.shape[0] * kept), *tensor.shape[1:])
