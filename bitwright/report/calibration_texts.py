"""Several calibration texts, and how a plan would change if there were only one of them: routing, and so what experts need, depends on the text."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import percent, significant
from bitwright.report.tables.tabular import titled

HEADINGS = ("text", "sequences", "units that differ", "Spearman", "loss", "routing")


@dataclass(frozen=True)
class Allocation:
    """The optimum of one table at the plan's size: `formats` of each unit, and mean bits of a weight in each kind of tensor, scales and all."""

    formats: tuple[str, ...]
    bits: tuple[float, ...]


@dataclass(frozen=True)
class Alone:
    """What some of the sequences say by themselves: their `allocation`, the `spearman` of their prices with those of all, and the `loss` of the plan
    of all over that of their own allocation, by their own prices.
    """

    allocation: Allocation
    spearman: float
    loss: float

    def n_differing(self, together: Allocation) -> int:
        """Units that all sequences together would give another format."""
        return sum(own != other for own, other in zip(self.allocation.formats, together.formats, strict=True))


@dataclass(frozen=True)
class Unpriced:
    """The sensitivity keeps nothing by sequence, so a text by itself has no prices."""


@dataclass(frozen=True)
class CalibrationText:
    """A text and its share in calibration sequences: what it says `alone`, and what as many sequences drawn from all texts say, `by_chance`. Beside
    it how often it is sent to each expert, with the Spearman to all texts; empty and NaN without experts.
    """

    name: str
    n_sequences: int
    alone: Alone | Unpriced
    by_chance: Alone | Unpriced
    frequencies: tuple[float, ...]
    routing_spearman: float


@dataclass(frozen=True)
class TextComparison:
    """`units` and their `kinds`, in which bits are told; `experts` with their `frequencies` over all texts; and what all texts together choose."""

    units: tuple[str, ...]
    kinds: tuple[str, ...]
    experts: tuple[str, ...]
    frequencies: tuple[float, ...]
    together: Allocation
    texts: tuple[CalibrationText, ...]

    @property
    def priced(self) -> list[tuple[str, Allocation]]:
        """All texts together, and each that has prices of its own."""
        alone = [(text.name, text.alone.allocation) for text in self.texts if isinstance(text.alone, Alone)]
        return [("all together", self.together), *alone]

    @property
    def differing(self) -> list[tuple[str, ...]]:
        """The units that some text would give another format: name, and the formats in the order of `priced`."""
        columns = [allocation.formats for _, allocation in self.priced]
        return [(unit, *formats) for unit, *formats in zip(self.units, *columns, strict=True) if len(set(formats)) > 1]


@dataclass(frozen=True)
class OneText:
    """There is nothing to compare."""


def texts_table(comparison: TextComparison) -> Table:
    """A row for each text."""
    table = titled("Calibration texts", caption=texts_in_words(comparison))
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for text in comparison.texts:
        table.add_row(*text_cells(text, comparison))
    return table


def kinds_table(comparison: TextComparison) -> Table:
    """Bits of a weight in each kind of tensor, by text."""
    return _by_text("Bits of a weight, by calibration text", "kind", [name for name, _ in comparison.priced], kind_rows(comparison))


def routing_table(comparison: TextComparison) -> Table:
    """How often each expert is chosen, by text."""
    return _by_text("Frequency of each expert, by calibration text", "expert", routing_headings(comparison)[1:], routing_rows(comparison))


def text_cells(text: CalibrationText, comparison: TextComparison) -> tuple[str, ...]:
    """A row under `HEADINGS`."""
    routing = significant(text.routing_spearman) if text.frequencies else "–"
    alone, chance = text.alone, text.by_chance
    if not isinstance(alone, Alone) or not isinstance(chance, Alone):
        return (text.name, f"{text.n_sequences:,}", "–", "–", "–", routing)
    differ = f"{alone.n_differing(comparison.together):,} ({chance.n_differing(comparison.together):,}) of {len(comparison.units):,}"
    spearman, loss = f"{alone.spearman:.3f} ({chance.spearman:.3f})", f"× {alone.loss:.3f} ({chance.loss:.3f})"
    return (text.name, f"{text.n_sequences:,}", differ, spearman, loss, routing)


def kind_rows(comparison: TextComparison) -> list[tuple[str, ...]]:
    """A kind of tensor and its bits, in the order of `TextComparison.priced`."""
    columns = [allocation.bits for _, allocation in comparison.priced]
    return [(kind, *(f"{bits:.2f}" for bits in row)) for kind, *row in zip(comparison.kinds, *columns, strict=True)]


def routing_headings(comparison: TextComparison) -> tuple[str, ...]:
    """Of `routing_rows`."""
    return ("expert", "all together", *(text.name for text in comparison.texts))


def routing_rows(comparison: TextComparison) -> list[tuple[str, ...]]:
    """An expert and its frequencies."""
    columns = [comparison.frequencies, *(text.frequencies for text in comparison.texts)]
    return [(expert, *(percent(frequency) for frequency in row)) for expert, *row in zip(comparison.experts, *columns, strict=True)]


def texts_in_words(comparison: TextComparison) -> str:
    """What the columns are, in sentences."""
    routing = " routing: Spearman of how often each expert is chosen." if comparison.experts else ""
    if not any(isinstance(text.alone, Alone) for text in comparison.texts):
        return f"This sensitivity keeps nothing by sequence, so a text by itself has no prices: gradient, joint and gradient-raw do.{routing}"
    return (
        "What the prices of each text alone would choose at the plan's size, against those of all together. Spearman: of the prices of units at "
        f"their coarsest. loss: what the choice of all costs by the text's own prices, over its own choice. In brackets the same of as many "
        f"sequences drawn from all texts: what is no more than that is chance.{routing}"
    )


def _by_text(title: str, first: str, names: tuple[str, ...] | list[str], rows: list[tuple[str, ...]]) -> Table:
    table = titled(title, caption="")
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
