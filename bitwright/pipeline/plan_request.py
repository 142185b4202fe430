"""Request for a plan: a run within a size limit and further ceilings, its candidates, and the plan and report made of the best of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bitwright.devices import Device
from bitwright.objectives import Cost, CostObjective, Measurement, NamedObjective
from bitwright.pipeline.planning.candidates import best, candidates, make_plan, own_candidate
from bitwright.pipeline.planning.cost_limits import Conditions, CostLimit
from bitwright.pipeline.planning.costs import limits_of, named_costs
from bitwright.pipeline.planning.origins import origin
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Memory, bounded
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.pipeline.run import Run
from bitwright.report import RunSummary, SizeLimit
from bitwright.spaces import DEFAULT_CACHE, CacheTypes, Choice, Plan, file_bytes


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """Request for a plan of at most `size_bytes`: of the file, or of file and KV cache, as the run's space counts them.

    `text` is the limit as the user wrote it, and `cache` are the KV cache types if the run does not choose them. `limits` are the ceilings beside it,
    and `costs` are reported, those of the ceilings among them. `method` is the requested search method; `as_published`, its own best plan is the only
    candidate.
    """

    run: Run
    size_bytes: int
    text: str
    cache: CacheTypes
    limits: tuple[CostLimit, ...]
    costs: tuple[Cost, ...]
    device: Device | None
    method: str = ""
    as_published: bool = False

    @cached_property
    def candidates(self) -> dict[str, Choice]:
        """Candidates for the budget, computed on first access, which must be after the search."""
        if self.as_published:
            return own_candidate(self.run, self.size_bytes, self.limits, method=self.method)
        return candidates(self.run, self.size_bytes, self.limits, method=self.method)

    def plan(self, values: Mapping[str, float]) -> Plan:
        """Return the best measured candidate as a plan, by `values`, or by divergence if they are empty."""
        name, measurement = self.named_best(values)
        return self.planned(name, measurement, self.run)

    def planned(self, name: str, measurement: Measurement, run: Run) -> Plan:
        """Return the candidate of that name as a plan, as it was measured in `run`: this one, or one of its variants."""
        text = ", ".join([self.text, *(limit.text for limit in self.limits)])
        by = origin(run, name, self.candidates[name], self.method)
        return make_plan(run, budget=text, strategy=name, measurement=measurement, cache=self.cache, by=by)

    def named_best(self, values: Mapping[str, float]) -> tuple[str, Measurement]:
        """Return the name of the best measured candidate and its measurement, by `values`, or by divergence if they are empty."""
        return best(self.run, self.candidates, values)

    def best(self, values: Mapping[str, float]) -> tuple[Choice, Measurement]:
        """Return the best measured candidate and its measurement, by `values`, or by divergence if they are empty."""
        name, measurement = self.named_best(values)
        return self.candidates[name], measurement

    def summary(self, values: Mapping[str, float]) -> RunSummary:
        """Return the report's numbers, with the best measured candidate by `values` as the selected one."""
        named = self.candidates
        chosen = best(self.run, named, values)[0]
        limit = SizeLimit(self._file_limit(named[chosen]))
        return summarise(self.run, named=named, chosen=chosen, limit=limit, costs=self.costs, device=self.device)

    def _file_limit(self, choice: Choice) -> int:
        """Return the bytes that the limit leaves for the file beside the KV cache of a choice `(n_units,)`."""
        space = self.run.space
        return self.size_bytes - (space.total_bytes(choice) - file_bytes(space, choice))


def request_plan(
    run: Run,
    limit: BudgetOrMemory,
    conditions: Conditions,
    *,
    objectives: Iterable[NamedObjective] = (),
    method: str = "",
    as_published: bool = False,
) -> PlanRequest:
    """Return the request for a plan within a limit and the ceilings of `conditions`, which reports the costs among the `objectives`.

    Raises:
        UserError: see `bounded` and `limits_of`; a cost cannot be computed for the run.
    """
    within, size_bytes = bounded(run, limit)
    limits = limits_of(within, conditions)
    limited = [ceiling.cost.objective for ceiling in limits]
    others = [cost for cost in objectives if isinstance(cost, CostObjective) and cost not in (*limited, CostObjective.BYTES, CostObjective.BITS)]
    return PlanRequest(
        within,
        size_bytes,
        limit.text,
        limit.fixed if isinstance(limit, Memory) else DEFAULT_CACHE,
        limits,
        costs=(*(ceiling.cost for ceiling in limits), *named_costs(within, others, conditions.device)),
        device=conditions.device,
        method=method,
        as_published=as_published,
    )
