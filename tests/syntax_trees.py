"""Syntax trees of the repository's files, and what they import of each other."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "bitwright"


@cache
def parsed(text: str) -> ast.Module:
    """Syntax tree of a file's text, parsed once for all rules."""
    return ast.parse(text)


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """The files of the package as paths within it, and their syntax trees."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        yield path.relative_to(root / PACKAGE).as_posix(), parsed(path.read_text(encoding="utf-8"))


def part_of(file: str) -> str:
    """`spaces` for `spaces/unit.py`, `cli` for `cli.py`."""
    return file.split("/")[0].removesuffix(".py")


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the tree and all statements in it; expressions, which are most of a tree, are not walked."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)]


@cache
def imported_names(tree: ast.AST) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """Line, module and names of every import, relative ones with their dots; no names for `import module`."""
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name, ()) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or ""), tuple(name.name for name in node.names)))
    return tuple(found)


@cache
def imported_files(root: Path, tree: ast.AST) -> tuple[tuple[int, str], ...]:
    """Line and file within the package of everything of the package that is imported, looked up once for all rules.

    `from bitwright import cli` is `cli.py`, but a name that a room's `__init__.py` shows is the room's, also where a file bears it.
    """

    def file_of(module: str) -> str | None:
        path = root.joinpath(*module.split("."))
        found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return found.relative_to(root / PACKAGE).as_posix() if found.is_file() else None

    def file_of_name(module: str, name: str) -> str | None:
        source = file_of(module)
        if source is None:
            return None
        shown = {shown for _, _, names in imported_names(parsed((root / PACKAGE / source).read_text("utf-8"))) for shown in names}
        return source if name in shown else file_of(f"{module}.{name}") or source

    found: list[tuple[int, str]] = []
    for line, module, names in imported_names(tree):
        if module.split(".")[0] == PACKAGE:
            files = {file_of_name(module, name) for name in names} or {file_of(module)}
            found += [(line, file) for file in sorted(filter(None, files))]
    return tuple(found)


def committed(root: Path) -> list[Path]:
    """The files that git tracks, or where there is no checkout all files outside environments and caches."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.split("\0") if name and (path := root / name).is_file()]
    built = re.compile(r"\.venv|\.git$|\..*_cache|\.hypothesis|__pycache__|demo$|dist$|.*\.egg-info")
    return [path for path in sorted(root.rglob("*")) if path.is_file() and not any(map(built.match, path.relative_to(root).parts))]
