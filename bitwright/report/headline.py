"""Headline of a run: its result, and the comparison with the best uniform format, in one sentence each."""

from dataclasses import dataclass
from math import hypot

from bitwright.report.limits import SizeLimit
from bitwright.report.numerals import significant, size, with_error
from bitwright.report.summary import Candidate, Quality, RunSummary


@dataclass(frozen=True)
class Headline:
    """Headline: `result` states the chosen file, `comparison` sets it against the best uniform format within the same size."""

    result: str
    comparison: str


def headline(summary: RunSummary) -> Headline:
    """Return the two sentences of a report's head as plain text."""
    chosen, note = summary.chosen, summary.structure
    if note is not None and note.won:
        nats = with_error(note.nats_per_token, note.standard_error)
        return Headline(f"{summary.model} in {size(note.size_bytes)} at {nats} nats/token from the original", note.sentence)
    basis = "from the original" if isinstance(chosen.measured, Quality) else "from the original (predicted, not measured)"
    nats = next((with_error(note.nats_per_token, note.standard_error) for note in summary.steps if note.ships), divergence(chosen))
    result = f"{summary.model} in {size(chosen.size_bytes)} at {nats} nats/token {basis}"
    rivals = _rivals(summary)
    if not rivals:
        return Headline(result, f"No uniform format to compare with was tried {_room(summary)}.")
    best = min(rivals, key=lambda rival: _like(rival, chosen))
    where = f"Best uniform format {_room(summary)}: {best.label}, {size(best.size_bytes)} at {_like_text(best, chosen)}"
    return Headline(result, f"{where} nats/token; {_verdict(chosen, best)}.")


def divergence(candidate: Candidate) -> str:
    """Format the measured divergence with its standard error, or the predicted one."""
    quality = candidate.measured
    return with_error(quality.nats_per_token, quality.standard_error) if isinstance(quality, Quality) else significant(candidate.predicted_nats)


def _rivals(summary: RunSummary) -> list[Candidate]:
    """Return the uniform candidates within the size limit, measured if the chosen one is measured."""
    chosen = summary.chosen
    room = summary.budget.size_bytes if isinstance(summary.budget, SizeLimit) else chosen.size_bytes
    fitting = [other for other in summary.candidates if other.kind == "uniform" and not other.chosen and other.size_bytes <= room]
    return [other for other in fitting if isinstance(other.measured, Quality) or not isinstance(chosen.measured, Quality)]


def _room(summary: RunSummary) -> str:
    return f"within {size(summary.budget.size_bytes)}" if isinstance(summary.budget, SizeLimit) else "of at most that size"


def _like(other: Candidate, chosen: Candidate) -> float:
    """Return the divergence of `other`, measured where that of `chosen` is, so that like is compared with like."""
    return other.nats_per_token if isinstance(chosen.measured, Quality) else other.predicted_nats


def _like_text(other: Candidate, chosen: Candidate) -> str:
    return divergence(other) if isinstance(chosen.measured, Quality) else significant(other.predicted_nats)


def _verdict(chosen: Candidate, best: Candidate) -> str:
    ours, theirs = chosen.nats_per_token, _like(best, chosen)
    if isinstance(chosen.measured, Quality) and isinstance(best.measured, Quality):
        error = hypot(chosen.measured.standard_error, best.measured.standard_error)
        if abs(ours - theirs) < 2 * error:
            return "the two are within two standard errors of each other"
    if theirs <= 0:
        return "a ratio to that is undefined"
    return f"this plan is {abs(1 - ours / theirs):.0%} {'lower' if ours < theirs else 'higher'}".replace("%", " %")
