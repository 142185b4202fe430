"""Chart of predicted against measured divergence, on plans that the predictor was not fitted to: the nearer to the diagonal the better."""

from html import escape

import numpy as np
from numpy.typing import NDArray

from bitwright.report.charts.axes import Logarithmic, Window
from bitwright.report.numerals import significant, with_error
from bitwright.report.search_history import Forecast

_HEIGHT = 350
_MARGIN = 0.06  # of the window, on each side of the measurements
_FAR = 3.0  # times beyond the measurements: a prediction further out is clipped to the edge
_MARKS = 250  # at most, spread evenly over the measurements by size

_HELD = '<line class="interval" x1="7" x2="7" y1="0" y2="16"/><circle class="plan" cx="7" cy="8" r="3.5"/>'
_MISSED = '<line class="interval missed" x1="7" x2="7" y1="0" y2="16"/><circle class="missed" cx="7" cy="8" r="3.5"/>'
_LEGEND = f"""<ul class="legend">
<li><svg width="14" height="16">{_HELD}</svg>in its 90 % interval</li>
<li><svg width="14" height="16">{_MISSED}</svg>outside it</li>
<li><svg width="26" height="12"><line class="diagonal" x1="1" y1="11" x2="25" y2="1"/></svg>as predicted</li>
</ul>"""


def forecast_chart(forecast: Forecast) -> str:
    """Return the legend and the chart as HTML; empty where no measurement is positive."""
    if not (forecast.measured > 0).any():
        return ""
    scale = _scale(forecast)
    window = Window(scale, scale, _HEIGHT)
    grid = window.grid(across="measured, nats/token (log scale)", up="predicted, nats/token (log scale)")
    diagonal = f'<line class="diagonal" x1="0" y1="{_HEIGHT}" x2="100%" y2="0"/>'
    marks = "".join(_mark(forecast, window, int(i)) for i in _shown(forecast))
    title = f"Predictions of {forecast.validation.predictor} against measurements"
    return _LEGEND + window.drawing(grid + diagonal + marks, title=title)


def _scale(forecast: Forecast) -> Logarithmic:
    """Return one scale for both axes, so that prediction equals measurement on the diagonal."""
    low, high = forecast.measured[forecast.measured > 0].min(), forecast.measured.max()
    near = np.clip(forecast.predicted, low / _FAR, high * _FAR)
    low, high = float(min(low, near.min())), float(max(high, near.max()))
    room = max((high / low) ** _MARGIN, 1.01)
    return Logarithmic(low / room, high * room)


def _shown(forecast: Forecast) -> NDArray[np.int64]:
    order = np.argsort(forecast.measured, kind="stable")
    return order if len(order) <= _MARKS else order[np.linspace(0, len(order) - 1, _MARKS).round().astype(int)]


def _mark(forecast: Forecast, window: Window, i: int) -> str:
    measured, error = float(forecast.measured[i]), float(forecast.standard_error[i])
    x, y = window.x(measured), window.y(float(forecast.predicted[i]))
    top, bottom = window.y(float(forecast.high[i])), window.y(float(forecast.low[i]))
    left, right = window.x(measured - error), window.x(measured + error)
    missed = "" if forecast.is_covered[i] else " missed"
    tip = (
        f"measured  {with_error(measured, error)} nats/token\npredicted {significant(float(forecast.predicted[i]))}\n"
        f"90 % interval {significant(float(forecast.low[i]))} to {significant(float(forecast.high[i]))}"
    )
    return (
        f'<g data-tip="{escape(tip)}" tabindex="0"><line class="interval{missed}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<line class="interval{missed}" x1="{left:.2f}%" x2="{right:.2f}%" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle class="{missed.strip() or "plan"}" cx="{x:.2f}%" cy="{y:.1f}" r="3.5"/></g>'
    )
