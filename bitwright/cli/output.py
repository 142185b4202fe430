"""Output of the command line: progress, tables and sentences."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment

import bitwright as bw
from bitwright.errors import BrokenPromiseError
from bitwright.progress import Advance, Progress

if TYPE_CHECKING:
    from bitwright.engines import Check
    from bitwright.objectives import Estimate
    from bitwright.pipeline import Memory, Run
    from bitwright.report import RunSummary
    from bitwright.spaces import Budget, Plan, Provenance

#: characters that change the direction of a line without being seen
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_PLAIN = frozenset("\n\t")


class Screen(Console):
    """Console that escapes control characters: what plans, models and paths contain is shown, never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of rich with their texts escaped; its own colours and movements are not in the texts."""
        for segment in Console.render(self, renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def visible(text: str) -> str:
    """Return `text` with control characters, lone surrogates and changes of direction escaped.

    >>> print(visible("\\x1b[31mred"))
    \\x1b[31mred
    """
    return "".join(letter if letter in _PLAIN or not _is_obeyed(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _is_obeyed(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" or letter in _TURNS


def screen(*, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> Screen:
    """Return a screen on which brackets and colons in names and texts are neither markup nor emoji."""
    return Screen(stderr=stderr, file=file, width=width, highlight=False, markup=False, emoji=False)


out = screen()
err = screen(stderr=True)


class Rows(Progress):
    """Progress bars, one for each stage, with the time left."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Show a progress bar of `total` steps until the stage ends."""
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<42}", markup=False), BarColumn(20), TaskProgressColumn())
        with Bars(*columns, TimeElapsedColumn(), TextColumn("left", markup=False), TimeRemainingColumn(), console=err) as bars:
            task = bars.add_task(title, total=total)

            def advance(n: int) -> None:
                bars.update(task, advance=n)

            yield advance

    def note(self, sentence: str) -> None:
        """Print the sentence to standard error."""
        err.print(sentence, soft_wrap=True)


def print_candidates(summary: "RunSummary", found: "Provenance") -> None:
    """Print the candidates, and which of them the plan is."""
    out.print(bw.report.candidates_table(summary))
    if sentence := bw.report.whose_plan(found):
        say(sentence)


def print_costs(summary: "RunSummary") -> None:
    """Print the front with each requested cost as a third axis, and the costs of the candidates."""
    for axes in summary.cost_fronts:
        out.print(bw.report.cost_front_table(axes))
    if summary.cost_fronts:
        out.print(bw.report.candidate_costs_table(summary))


def print_shipping(summary: "RunSummary") -> None:
    """Print how the candidates compare as shipped, where they ship with another rounding or steps than they were searched with."""
    if isinstance(summary.shipping, bw.report.Shipping):
        out.print(bw.report.shipping_table(summary.shipping))


def print_texts(summary: "RunSummary") -> None:
    """Print what each calibration text would choose by itself, where there are several."""
    if isinstance(summary.texts, bw.report.TextComparison):
        out.print(bw.report.texts_table(summary.texts))
        out.print(bw.report.kinds_table(summary.texts))


def print_experts(summary: "RunSummary") -> None:
    """Print which experts the calibration text never reached, where there are some."""
    if told := bw.report.never_routed_to(summary.experts):
        say(told)


def print_objectives(names: Iterable[str], rows: Sequence[tuple[str, Iterable["Estimate"]]]) -> None:
    """Print the candidates by each of the objectives called `names`, where there are `rows`: a candidate and its values."""
    if rows:
        out.print(bw.report.objectives_table(names, ((name, ((e.value, e.standard_error) for e in estimates)) for name, estimates in rows)))


def print_cache_text(run: "Run") -> None:
    """Print the length of the sequences that cache types were measured on, where they are part of the search."""
    for words, text in bw.pipeline.cache_text(run).items():
        say(f"{words.capitalize()} {text}, plans on sequences of {run.settings.sequence_length:,} tokens.")


def print_original(run: "Run") -> None:
    """Print how far llama.cpp is from torch with the original model, and which of its weights few formats can hold."""
    for words, text in (bw.pipeline.parity_text(run) | bw.pipeline.extremes_text(run)).items():
        say(f"{words[0].upper()}{words[1:]}: {text}.")


def how_to_serve(made: "Plan", limit: "Budget | Memory | None") -> str:
    """Return the command that serves the model within the memory limit, empty where there is none."""
    if not isinstance(limit, bw.pipeline.Memory):
        return ""
    return f"\nserve   {bw.pipeline.serve_command(made.target, 'MODEL', limit.serving(made.cache.types))}"


def print_check(found: "Check", path: Path) -> None:
    """Print the promised and found values of the model at `path`, and a text that the engine generated."""
    out.print(bw.report.check_table((bw.engines.digest_row(path), *found.rows)))
    say(f"{found.engine} writes: {found.prompt}{found.written}")


def say(text: str) -> None:
    """Print a sentence that may contain paths or generated text: a long line stays one line."""
    out.print(text, soft_wrap=True)


def exit_if_broken(found: "Check") -> None:
    """Raise where the model is not what its plan promises.

    Raises:
        BrokenPromiseError: a promise is broken.
    """
    if found.broken:
        raise BrokenPromiseError(" ".join(found.broken))
