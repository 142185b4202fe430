"""Section on each search as HTML: a summary of cost and result, the chart of its history, and the validation of its predictor."""

from collections.abc import Iterable
from html import escape

import numpy as np

from bitwright.report.charts.course_chart import course_chart
from bitwright.report.charts.forecast_chart import forecast_chart
from bitwright.report.limits import SizeLimit
from bitwright.report.numerals import duration, percent, significant, size, unbroken
from bitwright.report.search_history import Forecast, SearchHistory, Validation

_BEFORE = (
    "Divergences here are on the search text, not on the held-out text that candidates are compared on. A line begins at the tokens read until the "
    "first measurement."
)
_WITHIN = "Each step down is a better file that fits. Small dots were measured on part of the text; dots on the upper edge lie above it."
_ALONG = "The best known front is that of all plans measured in this run: the chart shows how early the search came near it, not how good it is."


def course_sections(courses: Iterable[SearchHistory]) -> str:
    """Return the sections of all searches, in their order; empty where there was none."""
    sections = "".join(map(_section, courses))
    return f"<p>{_BEFORE}</p>{sections}" if sections else ""


def _section(course: SearchHistory) -> str:
    """Return the heading, the paragraph and the charts of one search."""
    is_within = isinstance(course.goal, SizeLimit)
    heading, caption = ("Best divergence so far", _WITHIN) if is_within else ("Hypervolume", _ALONG)
    drawings = _figure(course_chart(course), heading=heading, caption=caption)
    if isinstance(course.forecast, Forecast):
        forecast_caption = unbroken(escape(_validation(course.forecast.validation)))
        drawings += _figure(forecast_chart(course.forecast), heading="Predicted against measured", caption=forecast_caption)
    sentences = (_cost(course), _result(course), _ending(course), f"Source: {course.source}." if course.source else "")
    text = unbroken(escape(" ".join(filter(None, sentences))))
    return f'<article class="course"><h3>{escape(_name(course))}</h3><p>{text}</p><div class="pair">{drawings}</div></article>'


def _figure(drawing: str, *, heading: str, caption: str) -> str:
    return f"<figure><h4>{heading}</h4>{drawing}<figcaption>{caption}</figcaption></figure>" if drawing else ""


def _name(course: SearchHistory) -> str:
    return f"{course.method}, within {size(course.goal.size_bytes)}" if isinstance(course.goal, SizeLimit) else f"{course.method}, along the front"


def _cost(course: SearchHistory) -> str:
    if not course.steps:
        return "Nothing was measured."
    n = len(course.steps)
    return f"{n:,} {'evaluations' if n > 1 else 'evaluation'}; {course.tokens:,} tokens and {duration(course.seconds)} in all."


def _result(course: SearchHistory) -> str:
    if not course.steps:
        return ""
    if not isinstance(course.goal, SizeLimit):
        first, last = (percent(float(course.hypervolume[end])) for end in (0, -1))
        return f"The hypervolume went from {first} to {last} of the best known front's."
    best = course.incumbent[np.isfinite(course.incumbent)]
    if not len(best):
        return "No measured file is small enough."
    first, last = significant(float(best[0])), significant(float(best[-1]))
    if first == last:
        return f"The first file that fits, at {first} nats/token, stayed the best."
    return f"The best divergence of a file that fits went from {first} to {last} nats/token."


def _ending(course: SearchHistory) -> str:
    if course.is_finished:
        return "The search stopped by itself: no remaining plan seemed worth measuring."
    return "The search stopped at its evaluation limit: more evaluations may find better plans."


def _validation(validation: Validation) -> str:
    return (
        f"Each of {validation.n_plans:,} plans as predicted by {validation.predictor} without being fitted to it: "
        f"Spearman {significant(validation.spearman)}, Kendall {significant(validation.kendall)}, "
        f"root mean square error {significant(validation.rmse_nats)} nats/token; "
        f"{percent(validation.coverage)} lie in their 90 % intervals. Horizontal bars are one standard error of the measurement."
    )
