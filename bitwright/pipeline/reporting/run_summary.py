"""Summary of a run: the values that its report shows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.devices import Device
from bitwright.objectives import Cost, Measurement
from bitwright.pipeline.calibration.long_text import cache_text
from bitwright.pipeline.planning.costs import cost_front
from bitwright.pipeline.pricing.chances import left_out_text
from bitwright.pipeline.pricing.link import Link, link_of
from bitwright.pipeline.pricing.original_model import extremes_text, parity_text
from bitwright.pipeline.pricing.priced_rows import sample_text
from bitwright.pipeline.pricing.run_space import uniforms
from bitwright.pipeline.reporting.expert_uses import expert_uses
from bitwright.pipeline.reporting.text_comparison import text_comparison
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.search_history import courses
from bitwright.pipeline.settings import OF_MODEL
from bitwright.predictors import Validation, proxy_named
from bitwright.report import Candidate, PredictedFront, Quality, RunSummary, ShippedCandidate, Shipping, SizeLimit, Stage
from bitwright.search import hull
from bitwright.spaces import Choice, chosen_cache, file_bytes, weight_space, with_cache_sizes, without_cache

_STAGES = {
    "load": "loading the model",
    "sample": "sampling text from the model",
    "imatrix": "importance matrix",
    "parity": "comparing the original in llama.cpp",
    "dropping": "dropping one expert at a time",
    "routing": "counting routed tokens",
    "rows": "finding the rows that matter",
    "bound": "pricing without slow formats",
    "quantize": "quantizing in every format",
    "gradient": "gradient sweep",
    "joint": "gradient sweep",
    "cache": "measuring KV cache types",
    "measured": "measuring one unit at a time",
    "reference": "the original's predictions",
    "search": "searching",
    "candidates": "measuring candidates",
    "ship": "requantizing and measuring candidates as they ship",
    "build": "writing the file",
    "check": "checking it in the engine",
}


def summarise(
    run: Run,
    *,
    named: dict[str, Choice],
    chosen: str,
    limit: SizeLimit | None,
    costs: tuple[Cost, ...] = (),
    device: Device | None = None,
) -> RunSummary:
    """Return a summary of all measurements of the run and of the candidates in `named`, with `chosen` as the selected one. `costs` are shown for
    each, computed for `device`.
    """
    scale, link, weights = run.scale, link_of(run), run.of_weights
    front = hull(weights.space, weights.table)
    as_files = replace(run, space=with_cache_sizes(run.space, {}))
    labels = {_key(choice): name for name, choice in uniforms(run).items()} | {_key(choice): name for name, choice in named.items()}
    measured = run.measurements | run.shipped
    choices = {_key(choice): choice for choice in named.values()} | {key: np.array(key) for key in measured}
    listed = [
        _candidate(run, choice, link=link, label=labels.get(key, "front"), measured=measured.get(key), chosen=key == _key(named[chosen]))
        for key, choice in choices.items()
    ]
    return RunSummary(
        model=Path(run.settings.model).name,
        target=run.settings.target,
        original_bytes=run.original_bytes,
        n_weights=run.space.n_weights,
        budget=limit,
        space=weights.space,
        table=np.where(weights.space.offered, scale.factor * weights.table, np.nan),
        front_sizes_bytes=front.size_bits // 8,
        front_sums=front.loss,
        front_nats=link.nats(front.loss),
        within_bits=_within_bits(weights, link),
        candidates=tuple(listed),
        courses=courses(run),
        stages=tuple(Stage(_STAGES.get(name, name), seconds, tokens, peak) for name, seconds, tokens, peak in run.store.stages()),
        settings=_described(run),
        reference_perplexity=float(run.store.text("reference perplexity")),
        shipping=_shipping(run, named, chosen),
        experts=expert_uses(run, weights.space.names(without_cache(run.space, named[chosen]))),
        texts=text_comparison(weights, file_bytes(run.space, named[chosen])),
        cost_fronts=tuple(cost_front(as_files, cost, device=device, candidates=choices.values()) for cost in costs),
    )


def _described(run: Run) -> dict[str, str]:
    """Return the settings of a run under their names, and what was noted about its texts, prices and formats under headings."""
    return (
        {name: value for name, value in run.store.settings().items() if not name.startswith(OF_MODEL)}
        | {"calibration text": run.store.text("calibration text"), "held-out text": run.store.text("held-out text")}
        | {"source of the sensitivity": proxy_named(run.settings.sensitivity).source}
        | cache_text(run)
        | parity_text(run)
        | extremes_text(run)
        | sample_text(run)
        | left_out_text(run)
    )


def _within_bits(weights: Run, link: Link) -> PredictedFront | None:
    """Return the predicted front of formats that store every weight, None where there are no others or a unit has none of them."""
    reductions = np.array([form.reduction for form in weights.space.formats])
    offered = weights.space.offered & (reductions == "")
    if (offered == weights.space.offered).all() or not offered.any(axis=1).all():
        return None
    front = hull(weights.space.narrowed(offered), weights.table)
    return PredictedFront(front.size_bits // 8, link.nats(front.loss))


def _shipping(run: Run, named: dict[str, Choice], chosen: str) -> Shipping | None:
    """Return the candidates of `named` that were measured again as they ship, with both measurements."""
    settings, before, after = run.settings, run.measurements, run.shipped
    rows = [
        ShippedCandidate(name, file_bytes(run.space, choice), _told(before[_key(choice)]), _told(after[_key(choice)]), name == chosen)
        for name, choice in named.items()
        if _key(choice) in after and _key(choice) in before
    ]
    if not rows:
        return None
    searched, shipped = (np.array([part[0] for part in column]) for column in zip(*((row.searched, row.shipped) for row in rows), strict=True))
    none = np.zeros(len(rows))
    ranks = Validation(shipped, none, searched, none)
    return Shipping(settings.rounding, settings.shipping, tuple(rows), ranks.spearman, ranks.kendall)


def _told(measurement: Measurement) -> tuple[float, float]:
    return measurement.nats_per_token, measurement.standard_error


def _candidate(run: Run, choice: Choice, *, link: Link, label: str, measured: Measurement | None, chosen: bool) -> Candidate:
    space, types = run.space, chosen_cache(run.space, choice)
    return Candidate(
        label=label if types.is_default else f"{label}, cache {types}",
        kind="uniform" if label.startswith("uniform") else "plan" if chosen else "front",
        choice=without_cache(space, choice),
        size_bytes=file_bytes(space, choice),
        bits_per_weight=weight_space(space).bits_per_weight(without_cache(space, choice)),
        summed=run.summed(choice),
        predicted_nats=link(run.summed(choice)).nats_per_token,
        measured=_quality(measured) if measured else None,
        chosen=chosen,
    )


def _quality(measurement: Measurement) -> Quality:
    return Quality(
        nats_per_token=measurement.nats_per_token,
        standard_error=measurement.standard_error,
        perplexity=measurement.perplexity,
        top1_agreement=measurement.top1_agreement,
        n_tokens=measurement.n_tokens,
    )


def _key(choice: Choice) -> tuple[int, ...]:
    return tuple(int(i) for i in choice)
