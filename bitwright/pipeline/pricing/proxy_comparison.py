"""Compare proxies on a run's model: rank correlation of their tables with the measured divergence of plans on held-out text.

The plans are random ones over all sizes, as many of one size around the middle, and all that the run has measured already. Of the random ones the run
stores the divergence alone, so they become no points of its front and no candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import EXPANDED_BYTES, choice_loader, swapping
from bitwright.objectives import Evaluator, KullbackLeibler, Measurement
from bitwright.pipeline.loaded_run import LoadedRun, referenced_if_needed, set_up, timed
from bitwright.pipeline.pricing.price_table import distortion_of, priced
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.run import Run
from bitwright.pipeline.run_lock import working_in
from bitwright.predictors import PROXIES, Agreement, Proxy, completed, importance_error_table, proxy_named, rank_agreement, sums, table_agreement
from bitwright.progress import Progress, Silent
from bitwright.ranges import PLANS
from bitwright.report import ProxyComparison, ProxyCost, RankedProxy, Ranks
from bitwright.search import scattered, sizes_between
from bitwright.spaces import Choices, Space, chosen_cache, finest_cache_types, has_cache, weight_space, without_cache

_STAGE = "plans for proxies"
_CHEAP_PASSES = 16.0  # in forward passes; a backward pass counts as two
_SPREAD, _MIDDLE = (0.05, 0.95), (0.5, 0.5)  # positions between the smallest file (0) and the largest (1), geometrically


@dataclass(frozen=True)
class ComparisonCost:
    """Upper bound on the cost of a comparison: passes of each proxy, their tokens on the calibration text, and tokens to measure plans on held-out
    text.
    """

    proxies: tuple[ProxyCost, ...]
    pricing_tokens: int
    measuring_tokens: int

    @property
    def text(self) -> str:
        """The cost in a sentence."""
        return (
            f"{len(self.proxies)} proxies read at most {self.pricing_tokens:,} tokens of the calibration text, forward and backward, "
            f"and measuring plans reads {self.measuring_tokens:,} held-out tokens; results that the run has stored are not computed again."
        )


def chosen_proxies(run: Run, names: Sequence[str]) -> tuple[Proxy, ...]:
    """Return the proxies of those names; without names, every proxy that is cheap on the run's model.

    Raises:
        UserError: there is no proxy of such a name.
    """
    if names:
        return tuple(proxy_named(name) for name in dict.fromkeys(names))
    return tuple(proxy for proxy in PROXIES if _weight(proxy, weight_space(run.space)) <= _CHEAP_PASSES)


def comparison_cost(run: Run, names: Sequence[str], *, n_plans: int) -> ComparisonCost:
    """Return what `compare_proxies` costs, without loading the model.

    Raises:
        UserError: there is no proxy of such a name, or too few plans are asked for.
    """
    PLANS.require(n_plans)
    settings, passes = run.settings, {proxy: proxy.passes(weight_space(run.space)) for proxy in chosen_proxies(run, names)}
    n_tokens = settings.n_calibration * settings.sequence_length
    priced = tuple(ProxyCost(proxy.name, proxy.source, took.forward, took.backward) for proxy, took in passes.items())
    return ComparisonCost(
        priced, sum(took.tokens(n_tokens) for took in passes.values()), (n_plans + 1) * settings.n_held_out * settings.sequence_length
    )


def compare_proxies(
    run: Run, names: Sequence[str] = (), *, n_plans: int = 48, device: str = "cpu", progress: Progress | None = None
) -> ProxyComparison:
    """Rank the proxies of those names, or all cheap ones, on `n_plans` random plans and those that the run has measured.

    Every table and every measurement is stored in the run and not repeated.

    Raises:
        UserError: there is no proxy of such a name, the model cannot be priced by one, or too few plans are asked for.
    """
    comparison_cost(run, names, n_plans=n_plans)
    with working_in(run.folder):
        return _compared(run, names, n_plans=n_plans, device=device, progress=progress)


def _compared(run: Run, names: Sequence[str], *, n_plans: int, device: str, progress: Progress | None) -> ProxyComparison:
    loaded, space = set_up(run.settings, run.folder, device=device, progress=progress or Silent()), weight_space(run.space)
    distortion = distortion_of(loaded, whole_space(loaded))
    tables = {}
    for proxy in chosen_proxies(run, names):
        table = priced(loaded, proxy.name, space=space, distortion=distortion)
        tables[proxy.name] = completed(table, importance_error_table(distortion))
    drawn = _drawn(space, n_plans, seed=run.settings.seed)
    nats = _nats(loaded, space, drawn)
    known = _weight_measurements(run)
    choices = np.concatenate([drawn, np.array(list(known), dtype=np.int64).reshape(-1, len(space.units))])
    values = np.concatenate([nats, [measurement.nats_per_token for measurement in known.values()]])
    alike = np.arange(len(choices)) < n_plans // 2
    judged = tuple(_judged(name, sums(table, choices), values=values, alike=alike) for name, table in tables.items())
    among = table_agreement({name: np.where(space.offered, table, np.nan) for name, table in tables.items()})
    return ProxyComparison(judged, among, len(values), int(alike.sum()), _range(values), _range(values[alike]))


def _weight_measurements(run: Run) -> dict[tuple[int, ...], Measurement]:
    """Return the run's measurements with the finest KV cache types, by the choice of the weights' formats."""
    space, types = run.space, finest_cache_types(run.space)
    found = ((np.array(choice), measurement) for choice, measurement in run.measurements.items())
    return {
        tuple(without_cache(space, choice).tolist()): measurement
        for choice, measurement in found
        if not has_cache(space) or chosen_cache(space, choice) == types
    }


def _drawn(space: Space, n_plans: int, *, seed: int) -> Choices:
    """Draw random plans `(n_plans, n_units)`: first those of equal size, then those over all sizes."""
    n_alike = n_plans // 2
    sizes = [sizes_between(space, *_MIDDLE, n_alike), sizes_between(space, *_SPREAD, n_plans - n_alike)]
    return scattered(space, np.concatenate(sizes), rng=np.random.default_rng(seed))


def _nats(loaded: LoadedRun, space: Space, choices: Choices) -> NDArray[np.float64]:
    """Return the divergences `(n,)` on held-out text; those that the run has stored are not measured again."""
    held_out, found = loaded.texts.held_out, np.zeros(len(choices))
    with (
        swapping(loaded.model, expanded_bytes=EXPANDED_BYTES) as swapper,
        referenced_if_needed(loaded, held_out, swapper.restore) as reference,
    ):
        load = choice_loader(swapper, loaded.model, loaded.levels, space)
        evaluator = Evaluator(loaded.model, load, reference=reference, objectives=[KullbackLeibler()], store=loaded.store, stage=_STAGE)
        with loaded.progress.stage("Measuring plans on held-out text", len(choices)) as advance:
            for i, choice in enumerate(choices):
                with timed(loaded.store, _STAGE):  # the evaluator counts the tokens
                    found[i] = evaluator(choice, evaluator.n_sequences).nats_per_token
                advance(1)
    return found


def _judged(name: str, predicted: NDArray[np.float64], *, values: NDArray[np.float64], alike: NDArray[np.bool_]) -> RankedProxy:
    every, equal = (rank_agreement(predicted[part], values[part], rng=np.random.default_rng(0)) for part in (slice(None), alike))
    return RankedProxy(name, _ranks(every), _ranks(equal))


def _ranks(found: Agreement) -> Ranks:
    return Ranks(found.spearman, found.low, found.high, found.kendall)


def _weight(proxy: Proxy, space: Space) -> float:
    passes = proxy.passes(space)
    return passes.forward + 2 * passes.backward


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())
