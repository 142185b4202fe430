"""Compare a run's plan with the plans of each of its calibration texts alone, from stored results, without the model."""

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import NO_ROUTING, routing_from, routing_key
from bitwright.pipeline.calibration.mixture import sequences_by_text, text_names
from bitwright.pipeline.run import Run, chance_table_key, text_table_key
from bitwright.predictors import stored, table_agreement
from bitwright.report import Allocation, CalibrationText, TextAllocation, TextComparison
from bitwright.search import solve
from bitwright.spaces import Choice, Unit


def text_comparison(run: Run, size_bytes: int) -> TextComparison | None:
    """Compare each calibration text of a run with the mixture, by the optima of their tables within `size_bytes`."""
    names, rows = text_names(run.store), sequences_by_text(run.store)
    if not names:
        return None
    space, whole = run.space, run.table
    together, ids = solve(space, whole, 8 * size_bytes).choice, run.store.array("calibration tokens").astype(np.int64)
    texts = []
    for i, (name, sequences) in enumerate(zip(names, rows, strict=True)):
        alone, by_chance = (_alone(run, key, together, size_bytes=size_bytes) for key in (text_table_key(i), chance_table_key(i)))
        routing = _frequency(run, ids[sequences])
        texts.append(CalibrationText(name, len(sequences), alone, by_chance, tuple(routing.tolist()), _spearman(routing, run.routing.frequency)))
    return TextComparison(
        units=tuple(unit.name for unit in space.units),
        kinds=_kinds(run),
        experts=tuple(f"blk.{layer}.expert.{expert}" for layer, expert in zip(run.routing.layer, run.routing.expert, strict=True)),
        frequencies=tuple(run.routing.frequency.tolist()),
        together=_allocation(run, together),
        texts=tuple(texts),
    )


def _alone(run: Run, key: str, together: Choice, *, size_bytes: int) -> TextAllocation | None:
    """Return the allocation by the table stored under `key`, compared with the mixture's."""
    if not run.store.has_array(key):
        return None
    space, table = run.space, run.store.array(key).astype(np.float64)
    units, own = np.arange(len(space.units)), solve(space, table, 8 * size_bytes).choice
    coarsest = stored(space).smallest()
    mine, other = float(table[units, own].sum()), float(table[units, together].sum())
    return TextAllocation(_allocation(run, own), _spearman(table[units, coarsest], run.table[units, coarsest]), other / mine if mine > 0 else 1.0)


def _allocation(run: Run, choice: Choice) -> Allocation:
    space, kinds = run.space, np.array([_kind(unit) for unit in run.space.units])
    bits, n_weights = space.size_bits[np.arange(len(choice)), choice], np.array([unit.n_weights for unit in space.units])
    means = tuple(float(bits[kinds == kind].sum() / n_weights[kinds == kind].sum()) for kind in _kinds(run))
    return Allocation(tuple(space.formats[f].name for f in choice), means)


def _kinds(run: Run) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_kind(unit) for unit in run.space.units))


def _kind(unit: Unit) -> str:
    """Return a unit's group: the layer for experts, the role for other units."""
    return f"blk.{unit.layer}, experts" if unit.expert >= 0 else unit.kind


def _frequency(run: Run, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often the tokens `ids` `(n_sequences, length)` are routed to each expert `(n_experts,)`; empty for a dense model."""
    key = routing_key(ids)
    return (routing_from(run.store.array(key)) if run.store.has_array(key) else NO_ROUTING).frequency


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(table_agreement({"one": one[:, None], "all": other[:, None]})[0, 1]) if len(one) else float("nan")
