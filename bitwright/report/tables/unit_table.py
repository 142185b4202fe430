"""Table of all units with the marginal prices of a smaller and a larger format, which explain their formats."""

from html import escape

import numpy as np

from bitwright.report.numerals import megabytes, percent, shapes, significant
from bitwright.report.prices import Step, grow, shrink
from bitwright.report.summary import RunSummary
from bitwright.spaces import Unit

_HEADINGS = ("tensor", "shape", "format", "MB", "predicted nats/token", "share", "price to shrink", "price to grow")


def unit_table(summary: RunSummary) -> str:
    """Return a sortable table of all units as HTML; the sort keys are in `data-by`."""
    total = float(np.nansum(summary.chosen_nats))
    head = "".join(f'<th scope="col"><button type="button">{heading}</button></th>' for heading in _HEADINGS)
    rows = "".join(_row(summary, u, total=total) for u in range(len(summary.space.units)))
    return f'<table class="list sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def exchange(summary: RunSummary) -> str:
    """Return a sentence on the cheapest step down and the best step up."""
    units = range(len(summary.space.units))
    down = [step.price for step in (shrink(summary, u) for u in units) if isinstance(step, Step)]
    up = [step.price for step in (grow(summary, u) for u in units) if isinstance(step, Step)]
    if not down or not up:
        return "No exchange is left: every tensor has its smallest or largest format."
    return (
        f"Here no tensor can shrink for less than {significant(min(down))} nats/token per MB saved, "
        f"and none can grow for a gain of more than {significant(max(up))} per MB spent."
    )


def _row(summary: RunSummary, u: int, *, total: float) -> str:
    unit, form = summary.space.units[u], summary.chosen_formats[u]
    size_bytes = int(summary.space.size_bits[u, summary.chosen.choice[u]]) // 8
    nats = float(summary.chosen_nats[u])
    share = nats / total if total > 0 and np.isfinite(nats) else 0.0
    return (
        f'<tr><th scope="row" data-by="{u}">{_name(unit)}</th>{_cell(shapes(unit), by=unit.n_weights)}'
        f"{_cell(form.name, by=form.bits_per_weight)}{_cell(megabytes(size_bytes), by=size_bytes)}"
        f"{_cell(significant(nats), by=nats)}{_cell(percent(share), by=share)}{_step(shrink(summary, u))}{_step(grow(summary, u))}</tr>"
    )


def _cell(text: str, *, by: float) -> str:
    return f'<td data-by="{by if np.isfinite(by) else -1:.6g}">{escape(text)}</td>'


def _step(step: Step | None) -> str:
    if step is None:
        return '<td data-by="-1">–</td>'
    return f'<td data-by="{step.price:.6g}">{significant(step.price)} <small>{step.form.name}</small></td>'


def _name(unit: Unit) -> str:
    also = [tensor.name for tensor in unit.tensors] if len(unit.tensors) > 1 else []
    return escape(unit.name) + (f"<small> = {escape(', '.join(also))}</small>" if also else "")
