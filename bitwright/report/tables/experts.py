"""Table of the experts of a mixture: how many calibration tokens each sees, and its formats."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import percent, significant
from bitwright.report.tables.tabular import titled

HEADINGS = ("expert", "tokens", "frequency", "mean weight", "format")

_NAMED = 6  # experts that a sentence names


@dataclass(frozen=True)
class ExpertUse:
    """Routed expert: calibration tokens routed to it, their share of all, the mean router weight of its output, and the formats of its matrices, none
    where they stay unquantized. Below `minimum_tokens` it `is_rare`, and its sensitivity is a floor or measured with forced routing.
    """

    name: str
    n_tokens: int
    frequency: float
    mean_weight: float
    formats: tuple[str, ...]
    minimum_tokens: int
    is_rare: bool


def experts_table(experts: tuple[ExpertUse, ...]) -> Table:
    """Return a table with one row per expert."""
    table = titled("Experts", caption=rare_experts_caption(experts))
    table.add_column(HEADINGS[0])
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for use in experts:
        table.add_row(*cells(use), style="yellow" if use.is_rare else "")
    return table


def cells(use: ExpertUse) -> tuple[str, ...]:
    """Return the cells of a row under `HEADINGS`."""
    return (use.name, f"{use.n_tokens:,}", percent(use.frequency), significant(use.mean_weight), ", ".join(use.formats) or "–")


def rare_experts_caption(experts: tuple[ExpertUse, ...]) -> str:
    """Return a sentence that names the experts with too few tokens."""
    if not experts:
        return "The model has no routed experts."
    rare, minimum = [use for use in experts if use.is_rare], experts[0].minimum_tokens
    if not rare:
        return f"Every expert saw {minimum} tokens of the calibration text or more."
    named = ", ".join(f"{use.name} ({use.n_tokens:,})" for use in rare)
    told = f"{len(rare)} of {len(experts)} experts saw fewer than {minimum} tokens of the calibration text"
    return f"{told}; their price is a floor, or was measured with tokens sent there: {named}."


def never_routed_to(experts: tuple[ExpertUse, ...]) -> str:
    """Return a sentence on the experts that no calibration token was routed to, empty if there are none."""
    unseen = [use.name for use in experts if not use.n_tokens]
    if not unseen:
        return ""
    named = ", ".join(unseen[:_NAMED]) + (f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else "")
    return (
        f"{len(unseen)} of {len(experts)} experts were never routed to by the calibration text, so what they are worth was measured only with tokens "
        f"sent there, or is a floor: {named}. More text, or text of the kind that the model is for, would say more."
    )
