"""First words of docstrings: a verb, or a noun of the field, never a clause or a pronoun in place of one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.syntax_trees import parsed, statements

ROOT = Path(__file__).parent.parent
FOLDERS = ("bitwright", "benchmarks", "examples", "tests")

CLAUSES = (
    "what",
    "whatever",
    "who",
    "whoever",
    "whose",
    "which",
    "whichever",
    "how",
    "why",
    "when",
    "where",
    "wherever",
    "whether",
    "while",
    "if",
    "because",
)
PRONOUNS = (
    *("that", "it", "its", "they", "their", "he", "his", "our", "this", "these", "those", "such", "none", "nothing", "everything"),
    *("both", "another", "other", "one", "same"),
)
PREPOSITIONS = (
    *("of", "in", "on", "at", "by", "for", "from", "with", "without", "over", "under", "between", "against", "after", "before"),
    *("as", "also", "only", "just"),
)
FORBIDDEN = frozenset((*CLAUSES, *PRONOUNS, *PREPOSITIONS, "see", "do"))
#: the first two words of a string that begins a line or a body, as all docstrings do
STRING = re.compile(r"""(?:^|:)[ \t]*[rR]?["']+(?:\\\n)?\s*((?:[^\s"']+\s*){1,2})""", re.MULTILINE)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every docstring."""
    for node in statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def faulty(text: str) -> bool:
    """Return whether a docstring begins with none of a verb and a noun."""
    first, *rest = text.lower().split()
    return first.rstrip(",.:;") in FORBIDDEN or (first in ("the", "a") and rest[:1] == ["same"])


def faulty_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each; only files with such a string are parsed, which takes most of the time."""
    if any(faulty(found[1]) for found in STRING.finditer(source)):
        yield from ((line, text) for line, text in docstrings(parsed(source)) if faulty(text))


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    told = [
        f"{path.relative_to(ROOT).as_posix()}:{line}: '{text.splitlines()[0]}': begin with a verb (Return, Write) or with the thing itself"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in faulty_docstrings(path.read_text(encoding="utf-8"))
    ]
    assert not told, "\n".join(["", *told])


@pytest.mark.parametrize(
    "text", ["What a plan is.", "Whether it fits.", "See `Codec.serves`.", "The same in vLLM.", "It waits.", "As ModelOpt does: so.", "None."]
)
def test_other_beginnings_are_noticed(text: str) -> None:
    source = f'def f():\n    """{text}"""\n\n\nclass A:\n    """Codec of integers."""\n'
    assert [line for line, _ in faulty_docstrings(source)] == [2]


@pytest.mark.parametrize(
    "source",
    ["'''None.'''", 'class A: "It waits."', 'def f():\n    """\\\n    The\n    same in vLLM."""', '"""\n\n  As it is."""', "def f(): r'That.'"],
)
def test_strings_of_every_kind_are_looked_at(source: str) -> None:
    assert len(list(faulty_docstrings(source))) == 1
