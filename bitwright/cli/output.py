"""What the command line prints: progress, tables, sentences."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment

import bitwright as bw
from bitwright.cli.options import NoLimit
from bitwright.errors import BrokenPromiseError
from bitwright.progress import Advance, Progress

if TYPE_CHECKING:
    from bitwright.engines import Check
    from bitwright.pipeline import Memory, Run
    from bitwright.report import RunSummary
    from bitwright.spaces import Budget, Plan

#: What moves a reader's eye without being a letter: signs that turn the direction of a line.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_PLAIN = frozenset("\n\t")


class Screen(Console):
    """A console on which nothing that comes from a file is obeyed: control signs of plans, models and paths are shown as they are named."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of rich, whose own colours and movements are not in their texts."""
        for segment in Console.render(self, renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def visible(text: str) -> str:
    """A text whose control signs, lone surrogates and turns of direction are written out.

    >>> print(visible("\\x1b[31mred"))
    \\x1b[31mred
    """
    return "".join(letter if letter in _PLAIN or not _is_obeyed(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _is_obeyed(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" or letter in _TURNS


out = Screen(highlight=False)
err = Screen(stderr=True, highlight=False)


class Rows(Progress):
    """A bar for each stage, with the time left."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<42}"), BarColumn(20), TaskProgressColumn())
        with Bars(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=err) as bars:
            task = bars.add_task(title, total=total)

            def advance(n: int) -> None:
                bars.update(task, advance=n)

            yield advance

    def note(self, sentence: str) -> None:
        """See `Progress.note`."""
        err.print(sentence, soft_wrap=True, markup=False)


def print_costs(summary: "RunSummary") -> None:
    """The front on the axes of each cost that was asked about, and what the candidates cost there."""
    for axes in summary.cost_fronts:
        out.print(bw.report.cost_front_table(axes))
    if summary.cost_fronts:
        out.print(bw.report.candidate_costs_table(summary))


def print_shipping(summary: "RunSummary") -> None:
    """How the candidates compare as shipped, where they ship otherwise than they were searched."""
    if isinstance(summary.shipping, bw.report.Shipping):
        out.print(bw.report.shipping_table(summary.shipping))


def print_texts(summary: "RunSummary") -> None:
    """What each calibration text alone would choose, where there are several."""
    if isinstance(summary.texts, bw.report.TextComparison):
        out.print(bw.report.texts_table(summary.texts))
        out.print(bw.report.kinds_table(summary.texts))


def print_experts(summary: "RunSummary") -> None:
    """Which experts the calibration text says nothing of, where there are some."""
    if told := bw.report.never_routed_to(summary.experts):
        say(told)


def print_cache_text(run: "Run") -> None:
    """How long the sequences were that types of the cache were measured on, where they are decided about."""
    for words, text in bw.pipeline.cache_text(run).items():
        say(f"{words.capitalize()} {text}, plans on sequences of {run.settings.sequence_length:,} tokens.")


def print_original(run: "Run") -> None:
    """How far llama.cpp was from torch with the original, where that was asked, and which of its weights few formats hold, where there are some."""
    for words, text in (bw.pipeline.parity_text(run) | bw.pipeline.extremes_text(run)).items():
        say(f"{words[0].upper()}{words[1:]}: {text}.")


def how_to_serve(made: "Plan", limit: "Budget | Memory | NoLimit") -> str:
    """The command of the engine within the memory that was asked about."""
    if not isinstance(limit, bw.pipeline.Memory):
        return ""
    return f"\nserve   {bw.pipeline.serve_command(made.target, 'MODEL', limit.serving(made.cache.types))}"


def print_check(found: "Check") -> None:
    """What was promised and found, and what the engine writes."""
    out.print(bw.report.check_table(found.rows))
    say(f"{found.engine} writes: {found.prompt}{found.written}")


def say(text: str) -> None:
    """Print what may hold a path or a model's words: brackets are no markup, and a long line stays one line."""
    out.print(text, soft_wrap=True, markup=False)


def exit_if_broken(found: "Check") -> None:
    """End with a sentence where a promise was broken.

    Raises:
        BrokenPromiseError: one was.
    """
    if found.broken:
        raise BrokenPromiseError(" ".join(found.broken))
