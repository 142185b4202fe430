"""Comparison of calibration texts: the plan that each text alone would give, since expert routing and sensitivities depend on the text."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import percent, significant
from bitwright.report.tables.tabular import titled

HEADINGS = ("text", "sequences", "units that differ", "Spearman", "loss", "routing")


@dataclass(frozen=True)
class Allocation:
    """Optimum of one sensitivity table at the plan's size: `formats` of each unit, and bits per weight of each kind of tensor, scales included."""

    formats: tuple[str, ...]
    bits: tuple[float, ...]


@dataclass(frozen=True)
class TextAllocation:
    """Sensitivities from some of the sequences only: the `allocation` that they give, the `spearman` of them with those from all sequences, and
    `loss`: the predicted loss of the plan from all sequences over that of their own allocation, by their own sensitivities.
    """

    allocation: Allocation
    spearman: float
    loss: float

    def n_differing(self, together: Allocation) -> int:
        """Return the number of units that have another format in the allocation from all sequences."""
        return sum(own != other for own, other in zip(self.allocation.formats, together.formats, strict=True))


@dataclass(frozen=True)
class CalibrationText:
    """Calibration text: its number of sequences, its sensitivities `alone`, and those of as many sequences drawn at random from all texts,
    `by_chance`, None if the sensitivity method stores none by sequence. `frequencies` holds the share of its tokens routed to each expert,
    `routing_spearman` their correlation with all texts; empty and NaN without experts.
    """

    name: str
    n_sequences: int
    alone: TextAllocation | None
    by_chance: TextAllocation | None
    frequencies: tuple[float, ...]
    routing_spearman: float


@dataclass(frozen=True)
class TextComparison:
    """Comparison of calibration texts: `units` and `kinds` of tensors, `experts` with their `frequencies` over all texts, and the allocation from
    all texts `together`.
    """

    units: tuple[str, ...]
    kinds: tuple[str, ...]
    experts: tuple[str, ...]
    frequencies: tuple[float, ...]
    together: Allocation
    texts: tuple[CalibrationText, ...]

    @property
    def priced(self) -> list[tuple[str, Allocation]]:
        """Names and allocations: all texts together, and each text that has sensitivities of its own."""
        alone = [(text.name, text.alone.allocation) for text in self.texts if isinstance(text.alone, TextAllocation)]
        return [("all together", self.together), *alone]

    @property
    def differing(self) -> list[tuple[str, ...]]:
        """Return the units that some text alone would give another format: name, and the formats in the order of `priced`."""
        columns = [allocation.formats for _, allocation in self.priced]
        return [(unit, *formats) for unit, *formats in zip(self.units, *columns, strict=True) if len(set(formats)) > 1]


def texts_table(comparison: TextComparison) -> Table:
    """Return a table with one row per text."""
    table = titled("Calibration texts", caption=texts_in_words(comparison))
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for text in comparison.texts:
        table.add_row(*text_cells(text, comparison))
    return table


def kinds_table(comparison: TextComparison) -> Table:
    """Return a table of bits per weight of each kind of tensor, by text."""
    return _by_text("Bits per weight, by calibration text", "kind", [name for name, _ in comparison.priced], kind_rows(comparison))


def routing_table(comparison: TextComparison) -> Table:
    """Return a table of the frequency of each expert, by text."""
    return _by_text("Frequency of each expert, by calibration text", "expert", routing_headings(comparison)[1:], routing_rows(comparison))


def text_cells(text: CalibrationText, comparison: TextComparison) -> tuple[str, ...]:
    """Return the cells of a row under `HEADINGS`."""
    routing = significant(text.routing_spearman) if text.frequencies else "–"
    alone, chance = text.alone, text.by_chance
    if not isinstance(alone, TextAllocation) or not isinstance(chance, TextAllocation):
        return (text.name, f"{text.n_sequences:,}", "–", "–", "–", routing)
    differ = f"{alone.n_differing(comparison.together):,} ({chance.n_differing(comparison.together):,}) of {len(comparison.units):,}"
    spearman, loss = f"{alone.spearman:.3f} ({chance.spearman:.3f})", f"× {alone.loss:.3f} ({chance.loss:.3f})"
    return (text.name, f"{text.n_sequences:,}", differ, spearman, loss, routing)


def kind_rows(comparison: TextComparison) -> list[tuple[str, ...]]:
    """Return rows of a kind of tensor and its bits per weight, in the order of `TextComparison.priced`."""
    columns = [allocation.bits for _, allocation in comparison.priced]
    return [(kind, *(f"{bits:.2f}" for bits in row)) for kind, *row in zip(comparison.kinds, *columns, strict=True)]


def routing_headings(comparison: TextComparison) -> tuple[str, ...]:
    """Return the headings of `routing_rows`."""
    return ("expert", "all together", *(text.name for text in comparison.texts))


def routing_rows(comparison: TextComparison) -> list[tuple[str, ...]]:
    """Return rows of an expert and its frequencies."""
    columns = [comparison.frequencies, *(text.frequencies for text in comparison.texts)]
    return [(expert, *(percent(frequency) for frequency in row)) for expert, *row in zip(comparison.experts, *columns, strict=True)]


def texts_in_words(comparison: TextComparison) -> str:
    """Return a caption that explains the columns."""
    routing = " routing: Spearman correlation of how often each expert is chosen." if comparison.experts else ""
    if not any(isinstance(text.alone, TextAllocation) for text in comparison.texts):
        return f"This sensitivity method stores nothing per sequence, so texts cannot be compared: use gradient, joint or gradient-raw.{routing}"
    return (
        "The plan of the same size that each text alone would give, against the plan from all texts. Spearman: of the sensitivities of units in "
        f"their coarsest format. loss: predicted loss of the plan from all texts over that of the text's own plan, by its own sensitivities. In "
        f"brackets the same for as many sequences drawn from all texts: a difference no larger than that is chance.{routing}"
    )


def _by_text(title: str, first: str, names: tuple[str, ...] | list[str], rows: list[tuple[str, ...]]) -> Table:
    table = titled(title, caption="")
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
