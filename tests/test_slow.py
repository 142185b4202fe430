"""Rooms keep tests that `make test-fast` runs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOMS = sorted(path.parent.name for path in TESTS.glob("*/__init__.py"))
MARK = "pytest.mark.slow"


def fast_tests(text: str) -> Iterator[str]:
    """The functions and classes of tests of a file that are not marked."""
    statements = ast.parse(text).body
    if not any(isinstance(node, ast.Assign) and ast.unparse(node) == f"pytestmark = {MARK}" for node in statements):
        tests = (node for node in statements if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"))
        yield from (test.name for test in tests if MARK not in map(ast.unparse, test.decorator_list))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_tests_that_are_not_slow(room: str) -> None:
    assert any(name for path in (TESTS / room).rglob("test_*.py") for name in fast_tests(path.read_text(encoding="utf-8")))


def test_marks_are_seen() -> None:
    marked = f"@{MARK}\n@pytest.mark.parametrize('a', [])\ndef test_a(): ...\n@{MARK}\nclass TestB: ...\n"
    assert list(fast_tests(marked)) == []
    assert list(fast_tests(f"{marked}def test_c(): ...\nclass TestD: ...\ndef other(): ...\n")) == ["test_c", "TestD"]
    assert list(fast_tests(f"pytestmark = {MARK}\ndef test_c(): ...\n")) == []
