"""Tasks with a right answer, read from files: multiple choice and cloze, as texts to be continued.

The files are those that evaluation suites publish their data as; each line's keys say which kind it is:

    {"query": ..., "choices": [...], "gold": 0}                       which continuation of one context (ARC, PIQA)
    {"context_options": [...], "continuation": ..., "gold": 0}        which context of one continuation (Winogrande, partial evaluation)
    {"context": ..., "continuation": ...}                             exactly this continuation (LAMBADA)
    six lines: context, index of the right ending, four endings       in a file that is not .jsonl (HellaSwag)

A query that begins with "Question:" is followed by a line "Answer:", as in the prompts of lm-eval. A continuation is set off by one space.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitwright.errors import TextError
from bitwright.objectives.text.documents import require_sayable, text_of_lines

_LINES_OF_AN_ITEM = 6


@dataclass(frozen=True)
class Item:
    """`options` (context, continuation) of which `gold` is the right one; a single option is a cloze, to be continued word for word."""

    options: tuple[tuple[str, str], ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """Items, and a name that keeps them apart from others."""

    name: str
    items: tuple[Item, ...]

    def first(self, n: int) -> "Task":
        """The same with `n` items at most."""
        return self if n >= len(self.items) else Task(f"{self.name} (first {n})", self.items[:n])


def read_task(path: Path) -> Task:
    """The items of a file, named by its path.

    Raises:
        TextError: the file cannot be read, an item lacks something or has no right answer, or there are none.
    """
    lines = [line for line in text_of_lines(path, "A task").split("\n") if line.strip()]
    if not lines:
        raise TextError(f"A task must not be empty; {path} is: give a file with items.")
    read, n_lines = (_of_object, 1) if path.suffix.lower() == ".jsonl" else (_of_lines, _LINES_OF_AN_ITEM)
    blocks = [lines[start : start + n_lines] for start in range(0, len(lines), n_lines)]
    return Task(str(path), tuple(_item(read, block, f"item {number} of {path}") for number, block in enumerate(blocks, start=1)))


def _item(read: Callable[[list[str]], Item | None], lines: list[str], place: str) -> Item:
    item = read(lines)
    for text in (text for option in item.options for text in option) if item else ():
        require_sayable(text, place)
    if item is None or not 0 <= item.gold < len(item.options) or not all(continuation.strip() for _, continuation in item.options):
        raise TextError(
            "An item has a query, choices and the index 'gold' of the right one, or context_options, a continuation and gold, or a context and "
            f"a continuation, or six lines of text; {place} has not: mend it."
        )
    return item


def _of_object(lines: list[str]) -> Item | None:
    """An item from a line of JSON, or None where it is none."""
    try:
        fields = json.loads(lines[0])
    except (ValueError, RecursionError):
        return None
    match fields:
        case {"query": str(query), "choices": [str(), str(), *_] as choices, "gold": int(gold)} if _are_texts(choices):
            return Item(tuple((_prompt(query), f" {choice}") for choice in choices), gold)
        case {"context_options": [str(), str(), *_] as contexts, "continuation": str(continuation), "gold": int(gold)} if _are_texts(contexts):
            return Item(tuple((context, f" {continuation}") for context in contexts), gold)
        case {"context": str(context), "continuation": str(continuation)}:
            return Item(((context, f" {continuation}"),), 0)
    return None


def _of_lines(lines: list[str]) -> Item | None:
    """An item from six lines, or None where it is none."""
    match lines:
        case [context, gold, *endings] if len(lines) == _LINES_OF_AN_ITEM and gold.strip().isdecimal():
            return Item(tuple((context, f" {ending}") for ending in endings), int(gold))
    return None


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _prompt(query: str) -> str:
    return f"{query.rstrip()}\nAnswer:" if query.startswith("Question:") else query.rstrip()
