"""Heat maps of layers × kinds of tensors: the format of each tensor, and its sensitivity.

A tensor outside the blocks (the embedding, the output head) has no layer and is shown in a strip above the layers. The colours are nine classes of
the style sheet, `s0` to `s8`, so that light and dark mode each have their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from math import ceil, log, log10

import numpy as np

from bitwright.report.numerals import megabytes, percent, shapes, significant
from bitwright.report.summary import RunSummary
from bitwright.report.tables.tables import format_counts
from bitwright.spaces import Format, Unit

_STEPS = 9
_COMMON_BITS = 4.0
_COUNTS = '<table class="counts"><tr><th></th><th>format</th><th>bits/weight</th><th>tensors</th><th>of the weights</th></tr>{}</table>'
_FRACTIONS = {0: "", 3: "thousandths of a ", 6: "millionths of a "}


@dataclass(frozen=True)
class _Cell:
    """Cell of a heat map: its colour class, text and tooltip."""

    look: str
    text: str
    tip: str


def format_map(summary: RunSummary) -> str:
    """Return the heat map of formats in the chosen plan, coloured by bits per weight, with counts per format."""
    looks = _format_looks(summary)
    formats, nats = summary.chosen_formats, summary.chosen_nats

    def cell(u: int) -> _Cell:
        form, unit = formats[u], summary.space.units[u]
        tip = f"{unit.name}\n{shapes(unit)}\n{form.name}, {form.bits_per_weight:.3g} bits/weight\npredicted {significant(float(nats[u]))} nats/token"
        return _Cell(looks[form], form.name, tip)

    total = sum(unit.n_weights for unit in summary.space.units)
    entries = "".join(
        f'<tr><td><i class="{looks[form]}"></i></td><td>{form.name}</td><td>{form.bits_per_weight:.3g}</td>'
        f"<td>{n_tensors:,}</td><td>{percent(n_weights / total)}</td></tr>"
        for form, n_tensors, n_weights in format_counts(summary)
    )
    return f'<div class="bits">{_map(summary.space.units, cell)}{_COUNTS.format(entries)}</div>'


def sensitivity_map(summary: RunSummary) -> str:
    """Return the heat map of sensitivity: the predicted divergence of each tensor in one common format, on a logarithmic colour scale."""
    form = common_format(summary)
    nats = summary.table[:, summary.space.formats.index(form)]  # (n_units,)
    positive = nats[np.isfinite(nats) & (nats > 0)]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    power = max(0, 3 * ceil(-log10(high) / 3))  # in thousandths, millionths, ... so that the largest has one to three digits before the point

    def cell(u: int) -> _Cell:
        tip = f"{summary.space.units[u].name}\n{_costs(summary, u)}"
        if not np.isfinite(nats[u]):
            return _Cell("none", "", tip)
        above = max(nats[u], low) / low
        share = log(above) / log(high / low) if high > low else float(nats[u] > 0)  # one figure alone stands out from zeros
        return _Cell(f"s{min(_STEPS - 1, int(share * _STEPS))}", significant(float(nats[u]) * 10.0**power, 2), tip)

    ramp = "".join(f'<i class="s{step}"></i>' for step in range(_STEPS))
    ends = [significant(value * 10.0**power, 2) for value in (low if high > low else 0.0, high)]
    unit = f"{_FRACTIONS.get(power, f'1e-{power} ')}{'nat' if power else 'nats'} per token"
    return f'<div class="heat">{_map(summary.space.units, cell)}<p class="scale">{ends[0]}<span class="ramp">{ramp}</span>{ends[1]} {unit}</p></div>'


def common_format(summary: RunSummary) -> Format:
    """Return the format that most tensors are offered; of several, the one nearest to four bits."""
    known = np.isfinite(summary.table).sum(axis=0)  # (n_formats,)
    most = [form for form, count in zip(summary.space.formats, known, strict=True) if count == known.max()]
    return min(most, key=lambda form: abs(form.bits_per_weight - _COMMON_BITS))


def _format_looks(summary: RunSummary) -> dict[Format, str]:
    """Return colour classes by rank of bits per weight among the formats in use, so that close ones differ."""
    widths = sorted({form.bits_per_weight for form in summary.chosen_formats})
    last = max(1, len(widths) - 1)
    return {form: f"s{round((_STEPS - 1) * widths.index(form.bits_per_weight) / last)}" for form in summary.chosen_formats}


def _costs(summary: RunSummary, u: int) -> str:
    """Return the offered formats of one unit, one per line, finest first, the chosen one marked."""
    space, chosen = summary.space, int(summary.chosen.choice[u])
    offered = [f for f in range(len(space.formats)) if space.offered[u, f]]
    offered.sort(key=lambda f: (-space.size_bits[u, f], summary.table[u, f]))
    lines = []
    for f in offered:
        price = significant(float(summary.table[u, f]))
        lines.append(f"{'►' if f == chosen else ' '} {space.formats[f].name:<8}{megabytes(space.size_bits[u, f] / 8):>8} MB {price:>9} nats/token")
    return "\n".join(lines)


def _map(units: tuple[Unit, ...], cell: Callable[[int], _Cell]) -> str:
    """Return the strip of tensors outside the blocks and the table of those inside; one cell of layer and kind may hold several units."""
    inside: dict[tuple[int, str], list[int]] = {}
    strip = ""
    for u, unit in enumerate(units):
        if unit.layer < 0:
            strip += f"<dt>{_breakable(unit.kind)}</dt><dd>{_block(cell(u))}</dd>"
        else:
            inside.setdefault((unit.layer, unit.kind), []).append(u)
    kinds = list(dict.fromkeys(unit.kind for unit in units if unit.layer >= 0))
    head = "".join(f'<th scope="col">{_breakable(kind)}</th>' for kind in kinds)
    rows = "".join(
        f'<tr><th scope="row">{layer}</th>'
        + "".join(f"<td>{''.join(_block(cell(u)) for u in inside.get((layer, kind), []))}</td>" for kind in kinds)
        + "</tr>"
        for layer in sorted({layer for layer, _ in inside})
    )
    outside = f'<dl class="strip">{strip}</dl>' if strip else ""
    width = f"min-width:{2.2 + 2.6 * len(kinds):.1f}rem"
    table = f'<div class="scroll"><table class="map" style="{width}"><tr><th>layer</th>{head}</tr>{rows}</table></div>'
    return outside + (table if rows else "")


def _block(cell: _Cell) -> str:
    return f'<div class="cell {cell.look}" data-tip="{escape(cell.tip)}" tabindex="0">{cell.text}</div>'


def _breakable(kind: str) -> str:
    return escape(kind).replace("_", "_<wbr>")
