"""Every name that a room shows is used outside it: by another part of the package, a page, or an example."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.syntax_trees import PACKAGE, ROOT, imported_names, modules, part_of
from tests.test_architecture import ROOMS


def unused_names(root: Path) -> Iterator[str]:
    """Names in the `__all__` of a room that nothing outside it uses."""
    used = {
        (module, name)
        for file, tree in modules(root)
        for _, module, names in imported_names(tree)
        for name in names
        if part_of(file) != module.removeprefix(f"{PACKAGE}.")
    }
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("examples/**/*.py"), *root.glob(f"{PACKAGE}/cli/*.py")]
    pages += [page for page in root.glob("tests/**/*.py") if "bw." in page.read_text(encoding="utf-8")]
    words = {word for page in pages for word in re.findall(r"\w+", page.read_text(encoding="utf-8"))}
    for file, tree in modules(root):
        room, _, name = file.partition("/")
        for node in tree.body if name == "__init__.py" and room in ROOMS | {"pipeline": ()} else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                shown = ast.literal_eval(node.value)
                yield from (f"{room}.{word}" for word in shown if (f"{PACKAGE}.{room}", word) not in used and word not in words)


def test_rooms_show_what_others_use() -> None:
    assert [*unused_names(ROOT)] == []


def test_a_name_that_nobody_uses_is_found(tmp_path: Path) -> None:
    room = tmp_path / PACKAGE / "spaces"
    room.mkdir(parents=True)
    (room / "unit.py").write_text("class Unit: ...\nclass Lonely: ...", encoding="utf-8")
    (room / "__init__.py").write_text('from bitwright.spaces.unit import Lonely, Unit\n\n__all__ = ["Lonely", "Unit"]', encoding="utf-8")
    (tmp_path / PACKAGE / "plans.py").write_text("from bitwright.spaces import Unit", encoding="utf-8")
    assert [*unused_names(tmp_path)] == ["spaces.Lonely"]
