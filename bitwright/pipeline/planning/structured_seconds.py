"""Seconds of a decode step of a model of which only a structure is kept, counted as those of formats alone are.

Each matrix costs its bytes times the reads per token and the seconds per byte of its format, everything else its bytes by bandwidth, and the cache of
keys and values what the groups of heads have that are left. What is gone costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bitwright.compress import Source
from bitwright.engines import Engine
from bitwright.objectives import NO_ROUTING, CostObjective, ReadShares, StepRates, step_rates
from bitwright.pipeline.planning.cost_limits import Conditions
from bitwright.pipeline.planning.costs import costs_of, serving_of
from bitwright.pipeline.planning.memory_budget import group_cache_bytes
from bitwright.pipeline.run import Run
from bitwright.spaces import DEFAULT_CACHE, CacheTypes, Structure, Tensor, has_cache


@dataclass(frozen=True, eq=False)
class CountedSeconds:
    """Seconds of a decode step that count against a ceiling of `at_most` on the device called `device`, by its `rates`.

    `source` is the whole model as the `engine` holds it, `group_cache_bytes` are those of the cache of a group of heads of a block, and
    `other_cache_bytes` what is counted with the cache besides.
    """

    engine: Engine
    source: Source
    rates: StepRates
    group_cache_bytes: int
    other_cache_bytes: int
    at_most: float
    device: str

    @cached_property
    def _shares(self) -> ReadShares:
        return ReadShares(self.source, NO_ROUTING)

    def matrix(self, tensor: Tensor, n_bytes: int, form: str) -> float:
        """Return the seconds of a tensor, in the shape that is kept, of `n_bytes` in a format that a choice gives it."""
        return self._shares.of(tensor) * n_bytes * self.rates.of(form)

    def undecided(self, tensor: Tensor, n_bytes: int) -> float:
        """Return the seconds of a tensor, in the shape that is kept, of `n_bytes` that no choice changes."""
        return self._shares.of(tensor) * n_bytes * self.rates.by_bandwidth

    def of_groups(self, n_groups: int) -> float:
        """Return the seconds of the full cache of so many groups of heads."""
        return n_groups * self.group_cache_bytes * self.rates.by_bandwidth

    @property
    def besides(self) -> float:
        """Seconds besides tensors and groups of heads."""
        return self.other_cache_bytes * self.rates.by_bandwidth + self.rates.per_step

    def of(self, structure: Structure, formats: Mapping[str, str]) -> float:
        """Return the seconds of a structure whose tensors have the `formats` (tensor of the whole model → format)."""
        kept = self.engine.narrowed(self.source, structure)
        named, stored_bytes = kept.renamed(formats), self.engine.target.stored_bytes
        shares, total = ReadShares(kept, NO_ROUTING), self.besides + self.of_groups(sum(structure.head_groups))
        for tensor in kept.tensors:
            form = named.get(tensor.name)
            n_bytes = kept.stored_bytes(tensor) if form is None else stored_bytes(tensor.shape, self.engine.target.format(form))
            total += shares.of(tensor) * n_bytes * (self.rates.by_bandwidth if form is None else self.rates.of(form))
        return total


def counted_seconds(run: Run, engine: Engine, source: Source, conditions: Conditions, types: CacheTypes) -> CountedSeconds | None:
    """Return the seconds that count against the ceiling of `conditions`, with keys and values in these types, None where there is no ceiling.

    `source` is the whole model of `run` as the engine holds it.

    Raises:
        UserError: the device has no rate for a format that the run offers.
    """
    ceilings = [asked.value for asked in conditions.at_most if asked.objective == CostObjective.SECONDS]
    if not ceilings or conditions.device is None:
        return None
    device, anatomy = conditions.device, costs_of(run).anatomy
    if has_cache(run.everything):
        plain = serving_of(replace(device, cache=DEFAULT_CACHE))
        sizes, serving = anatomy.cache_bytes(plain), replace(plain, keys=types.keys, values=types.values)
        cache_bytes = sizes[types.keys][0] + sizes[types.values][1]
    else:
        serving = serving_of(device)
        cache_bytes = sum(line.size_bytes for line in anatomy.use(serving, file_bytes=anatomy.header_bytes).cache)
    of_group, n_groups = group_cache_bytes(anatomy, serving)
    space = run.of_weights.space
    rates = step_rates(device, [space.formats[f].name for f in np.flatnonzero(space.offered.any(axis=0))])
    return CountedSeconds(engine, source, rates, of_group, cache_bytes - n_groups * of_group, min(ceilings), device.name)
