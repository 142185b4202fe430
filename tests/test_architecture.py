"""Rules of the architecture: who may import whom, where each heavy dependency lives, and what the code does without.

Every rule is a function from the root of a repository to its breaches, each a line that starts with `file:line`. The rules are run on this
repository, and each is run on a small tree that breaks it, so that a rule that cannot fail is noticed.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.syntax_trees import PACKAGE, ROOT, committed, imported_files, imported_names, modules, parsed, part_of, statements

# each part of the package, and the parts that it may import besides itself and EVERYWHERE
ROOMS = {
    "spaces": (),
    "devices": ("spaces",),
    "compress": ("spaces",),
    "objectives": ("compress", "devices", "spaces"),
    "predictors": ("objectives", "compress", "spaces"),
    "search": ("spaces",),
    "engines": ("objectives", "compress", "devices", "spaces"),
    "dialects": ("engines", "compress", "spaces"),
    "methods": ("search", "predictors", "objectives", "spaces"),
    "report": ("spaces",),
}
# rooms inside rooms, and the others beside them that each may import; the files right in the room are open to all of it
SUB_ROOMS: dict[str, dict[str, tuple[str, ...]]] = {
    "compress": {"models": (), "codecs": ("models",), "in_place": ("models", "codecs")},
    "objectives": {"text": (), "metrics": ("text",)},
    "predictors": {"sensitivity": (), "plans": ("sensitivity",)},
    "search": {"solvers": (), "strategies": ("solvers",)},
    "engines": {"llama_cpp": (), "compressed_tensors": (), "native": ()},
    "report": {"tables": (), "charts": ("tables",)},
    "pipeline": {
        "calibration": (),
        "finishing": (),
        "workers": (),
        "pricing": ("calibration", "workers"),
        "planning": ("finishing", "pricing", "workers"),
        "searching": ("planning", "pricing", "workers"),
        "reporting": ("calibration", "planning", "pricing", "searching"),
    },
}
EVERYWHERE = ("errors", "plugins", "progress", "ranges", "whole_files", "written_files")
PARTS = ROOMS | {
    "errors": (),
    "plugins": ("errors",),
    "progress": (),
    "whole_files": (),
    "written_files": (),
    "ranges": (),
    "pipeline": (*ROOMS, "__init__"),
    "cli": (*ROOMS, "__init__", "pipeline"),
    "__init__": (*ROOMS, "pipeline"),
    "native": ("engines",),
    "testing": (*ROOMS,),
    "__main__": ("cli",),
}

# heavy dependencies and the only files (or, with a slash, rooms) that import them
HOMES = {
    "accelerate": ("compress/",),
    "botorch": ("predictors/plans/gaussian_process.py", "search/strategies/bayesian.py"),
    "hypothesis": ("testing/",),
    "lm_eval": ("objectives/metrics/harness.py",),
    "optuna": ("search/strategies/optuna_samplers.py",),
    "pulp": ("search/solvers/milp.py",),
    "pytest": ("testing/",),
    "pydantic": ("spaces/plan.py",),
    "ray": ("pipeline/workers/ray_cluster.py",),
    "sqlite3": ("objectives/store.py",),
    "transformers": ("compress/", "engines/", "objectives/", "testing/"),
    "typer": ("cli/",),
    "vllm": ("engines/compressed_tensors/vllm_worker.py",),
    "xllamacpp": ("compress/models/gguf/libggml.py", "engines/llama_cpp/memory_probe.py", "engines/llama_cpp/runtime.py"),
}
LIGHT_IMPORT_FORBIDS = (*HOMES, "torch")

VAGUE_NAMES = {"base", "common", "core", "helper", "helpers", "misc", "util", "utils"}
DYNAMIC_ACCESS = {"hasattr", "getattr", "setattr", "delattr"}
# file -> the calls of DYNAMIC_ACCESS that it cannot do without
DYNAMIC_EXCEPTIONS: dict[str, tuple[str, ...]] = {}
LINES_AT_MOST = 400
PUBLIC_NAMES_AT_MOST = 16
# absolute folders of one machine; written so that this line does not match itself
MACHINE_PATH = re.compile(r"(?<![\w.~>*-])/(?:work|root|home|Users)/\w")

# an import that does not begin its line
NESTED_IMPORT = re.compile(r"^(?:[ \t]+|.*[:;][ \t]*)(?:import|from)\b", re.MULTILINE)

Breaches = Iterator[str]
Rule = Callable[[Path], Breaches]


# --- the rules


def imports_go_one_way(root: Path) -> Breaches:
    """Rooms import only what PARTS allows, and of another room only what the room itself shows."""
    for file, tree in modules(root):
        part = part_of(file)
        if part not in PARTS:
            yield f"{PACKAGE}/{file}:1: '{part}' is no part of the house: give it a row in PARTS, or move the file into a room"
            continue
        for line, target in imported_files(root, tree):
            other = part_of(target)
            if other == part:
                continue
            if other not in (*PARTS[part], *EVERYWHERE):
                may = ", ".join((*PARTS[part], *EVERYWHERE))
                yield f"{PACKAGE}/{file}:{line}: '{part}' imports '{other}', and may import only {may}"
            elif other in ROOMS and target != f"{other}/__init__.py":
                yield f"{PACKAGE}/{file}:{line}: imports {target} from outside its room: write 'from {PACKAGE}.{other} import ...'"


def sub_rooms_one_way(root: Path) -> Breaches:
    """A room inside a room is listed in SUB_ROOMS, and imports only those beside it that are listed there."""
    for file, tree in modules(root):
        room, *inside = file.split("/")
        allowed = SUB_ROOMS.get(room, {})
        if len(inside) < 2:
            continue
        if inside[0] not in allowed:
            yield f"{PACKAGE}/{file}:1: '{room}/{inside[0]}' is no part of the house: give it a row in SUB_ROOMS"
            continue
        for line, target in imported_files(root, tree):
            other_room, *other = target.split("/")
            if other_room == room and len(other) > 1 and other[0] not in (inside[0], *allowed[inside[0]]):
                yield f"{PACKAGE}/{file}:{line}: '{inside[0]}' imports '{other[0]}', and may import only {', '.join(allowed[inside[0]]) or 'itself'}"


def siblings_by_full_path(root: Path) -> Breaches:
    """A file imports the files of its own room one by one, never its room as a whole, and never relatively."""
    for file, tree in modules(root):
        for line, module, _ in imported_names(tree):
            if module.startswith("."):
                yield f"{PACKAGE}/{file}:{line}: a relative import: write the full path"
        for line, target in imported_files(root, tree):
            if target == f"{part_of(file)}/__init__.py":
                yield f"{PACKAGE}/{file}:{line}: imports its own room: write 'from {PACKAGE}.{part_of(file)}.<file> import ...'"


def no_cycles(root: Path) -> Breaches:
    """No file imports itself by way of others."""
    graph = {file: {target for _, target in imported_files(root, tree) if target != file} for file, tree in modules(root)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        lines = {target: line for file, tree in modules(root) if file == circle[0] for line, target in imported_files(root, tree)}
        yield f"{PACKAGE}/{circle[0]}:{lines[circle[1]]}: an import cycle: {' imports '.join(circle)}"


def heavy_dependencies_at_home(root: Path) -> Breaches:
    """A dependency of HOMES is imported by the files named there and by no other."""
    for file, tree in modules(root):
        for line, module, _ in imported_names(tree):
            homes = HOMES.get(name := module.split(".")[0])
            if homes is not None and file not in homes and f"{part_of(file)}/" not in homes:
                yield f"{PACKAGE}/{file}:{line}: imports {name}, whose homes are: {', '.join(homes) or 'none yet'}"


def rooms_show_names_only(root: Path) -> Breaches:
    """The `__init__.py` of a room is a docstring, imports and `__all__`."""
    for file, tree in modules(root):
        if not re.fullmatch(r".+/__init__\.py", file):
            continue
        for node in tree.body:
            words = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            shown = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            if not (words or shown or isinstance(node, ast.Import | ast.ImportFrom)):
                yield f"{PACKAGE}/{file}:{node.lineno}: more than a docstring, imports and __all__: move it into a file of the room"


def no_star_imports(root: Path) -> Breaches:
    """Every imported name is written."""
    for file, tree in modules(root):
        for line, module, names in imported_names(tree):
            if "*" in names:
                yield f"{PACKAGE}/{file}:{line}: a star import from {module}: name what is used"


def no_global_statements(root: Path) -> Breaches:
    """No function changes a variable of its module."""
    for file, tree in modules(root):
        for node in statements(tree):
            if isinstance(node, ast.Global):
                yield f"{PACKAGE}/{file}:{node.lineno}: a 'global' statement: pass the value and return it"


def no_imports_inside_functions(root: Path) -> Breaches:
    """Imports stand at the top of a file."""
    for path in (path for path in committed(root) if path.suffix == ".py"):
        if not NESTED_IMPORT.search(text := path.read_text(encoding="utf-8")):
            continue
        functions = (node for node in ast.walk(parsed(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        for line in sorted({line for function in functions for line, _, _ in imported_names(function)}):
            yield f"{path.relative_to(root).as_posix()}:{line}: an import inside a function: move it to the top of the file"


def no_dynamic_access(root: Path) -> Breaches:
    """No object is asked which attributes it happens to have."""
    for file, tree in modules(root):
        for node in ast.walk(tree):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name in DYNAMIC_ACCESS and name not in DYNAMIC_EXCEPTIONS.get(file, ()):
                yield f"{PACKAGE}/{file}:{node.lineno}: calls {name}: name the attribute, or make the difference a type"


def no_vague_names(root: Path) -> Breaches:
    """A file or folder is named after what it holds."""
    for path in committed(root):
        file = path.relative_to(root)
        if path.suffix == ".py" and (vague := VAGUE_NAMES & {*file.parts[:-1], file.stem.removeprefix("test_")}):
            yield f"{file.as_posix()}:1: '{min(vague)}' says nothing: name it after its noun; what two rooms need belongs to the lower one"


def short_files(root: Path) -> Breaches:
    """A file fits the head of a reader."""
    for path in committed(root):
        if path.suffix == ".py" and (n_lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_AT_MOST:
            yield f"{path.relative_to(root).as_posix()}:{LINES_AT_MOST}: {n_lines} lines, and {LINES_AT_MOST} at most: split it by its nouns"


def no_machine_paths(root: Path) -> Breaches:
    """Committed files know no folders of the machine they were written on."""
    for path in committed(root):
        raw = path.read_bytes()
        text = raw.decode("utf-8", errors="replace") if b"\0" not in raw else ""
        for number, line in enumerate(text.splitlines() if MACHINE_PATH.search(text) else (), start=1):
            if found := MACHINE_PATH.search(line):
                yield f"{path.relative_to(root).as_posix()}:{number}: a path of one machine, '{line[found.start() :][:30]}': make it relative"


# each rule, a file that breaks it, its text, and the line at fault
BROKEN: list[tuple[Rule, str, str, int]] = [
    (imports_go_one_way, "bitwright/spaces/bad.py", "import bitwright.compress", 1),
    (imports_go_one_way, "bitwright/compress/bad.py", "\nfrom bitwright import objectives", 2),
    (imports_go_one_way, "bitwright/objectives/bad.py", "from bitwright.predictors import Predictor", 1),
    (imports_go_one_way, "bitwright/search/bad.py", "from bitwright.predictors import Predictor", 1),
    (imports_go_one_way, "bitwright/predictors/bad.py", "def f():\n    from bitwright.search import strategy", 2),
    (imports_go_one_way, "bitwright/report/bad.py", "from bitwright.pipeline import fit", 1),
    (imports_go_one_way, "bitwright/predictors/bad.py", "from bitwright import cli", 1),
    (imports_go_one_way, "bitwright/pipeline.py", "from bitwright.cli import commands", 1),
    (imports_go_one_way, "bitwright/errors.py", "from bitwright.spaces import Unit", 1),
    (imports_go_one_way, "bitwright/search/bad.py", "from bitwright.spaces.unit import Unit", 1),
    (imports_go_one_way, "bitwright/cli/bad.py", "from bitwright.spaces import unit", 1),
    (imports_go_one_way, "bitwright/registry/__init__.py", "", 1),
    (sub_rooms_one_way, "bitwright/compress/models/bad.py", "import json\nfrom bitwright.compress.codecs.ggml import dequantize", 2),
    (sub_rooms_one_way, "bitwright/search/wizards/oracle.py", "", 1),
    (siblings_by_full_path, "bitwright/spaces/bad.py", "from bitwright.spaces import Unit", 1),
    (siblings_by_full_path, "bitwright/spaces/bad.py", "from .unit import Unit", 1),
    (no_cycles, "bitwright/spaces/unit.py", "\nfrom bitwright.spaces.space import Space", 2),
    (heavy_dependencies_at_home, "bitwright/search/bad.py", "import pulp", 1),
    (heavy_dependencies_at_home, "bitwright/search/bad.py", "from transformers.models import auto", 1),
    (heavy_dependencies_at_home, "bitwright/spaces/bad.py", "import json, optuna", 1),
    (rooms_show_names_only, "bitwright/search/__init__.py", '"""Doc."""\n\nLIMIT = 3', 3),
    (no_star_imports, "bitwright/spaces/bad.py", "from math import *", 1),
    (no_global_statements, "bitwright/spaces/bad.py", "def f():\n    global x\n    x = 1", 2),
    (no_imports_inside_functions, "bitwright/spaces/bad.py", "class A:\n    def f(self):\n        import json", 3),
    (no_imports_inside_functions, "benchmarks/bad.py", "def f():\n    import json", 2),
    (no_imports_inside_functions, "benchmarks/bad.py", "import re\ndef f(): from json import loads", 2),
    (no_dynamic_access, "bitwright/spaces/bad.py", "x = 1\nprint(getattr(x, 'real'))", 2),
    (no_vague_names, "bitwright/spaces/utils.py", "", 1),
    (no_vague_names, "tests/common/test_unit.py", "", 1),
    (short_files, "tests/test_long.py", "\n" * 401, 400),
    (no_machine_paths, "docs/guide.md", "First,\nopen /" + "root/models/a.gguf", 2),
]
RULES = list(dict.fromkeys(rule for rule, *_ in BROKEN))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small repository that keeps every rule."""
    files = {
        "bitwright/__init__.py": '"""Light."""\n\n__version__ = "0"\n',
        "bitwright/errors.py": "class UserError(Exception): ...",
        "bitwright/pipeline.py": "from bitwright.search import strategy\nfrom bitwright.predictors import Predictor",
        "bitwright/cli/__init__.py": '"""Command line."""',
        "bitwright/cli/commands.py": "import typer\nfrom bitwright import __version__, pipeline",
        "bitwright/spaces/unit.py": "from bitwright.errors import UserError\nclass Unit: ...",
        "bitwright/spaces/space.py": "from bitwright.spaces.unit import Unit\nclass Space: ...",
        "bitwright/spaces/discover.py": "def discover(): ...",
        "bitwright/spaces/__init__.py": (
            '"""Room."""\nfrom bitwright.spaces.discover import discover\nfrom bitwright.spaces.unit import Unit\n__all__ = ["Unit", "discover"]'
        ),
        "bitwright/compress/models/model.py": "import transformers\nfrom bitwright.spaces import Unit, discover",
        "bitwright/compress/codecs/ggml.py": "from bitwright.compress.models.model import Model\ndef dequantize(): ...",
        **{f"bitwright/{room}/__init__.py": '"""Room."""' for room in ROOMS if room != "spaces"},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps(rule: Rule) -> None:
    rule_violations = [*rule(ROOT)]
    assert not rule_violations, "\n".join(["", rule.__doc__ or "", *rule_violations])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_house_keeps(rule: Rule, house: Path) -> None:
    assert [*rule(house)] == []


@pytest.mark.parametrize(("rule", "file", "text", "line"), BROKEN)
def test_a_breach_is_named(house: Path, rule: Rule, file: str, text: str, line: int) -> None:
    (house / file).parent.mkdir(parents=True, exist_ok=True)
    (house / file).write_text(text, encoding="utf-8")
    rule_violations = [*rule(house)]
    assert len(rule_violations) == 1
    # a cycle may be told from any of its files
    assert rule_violations[0].startswith(f"{file}:{line}: ") or rule is no_cycles


def imported_bitwright() -> dict[str, list[str]]:
    """Return what a fresh process has loaded and sees after `import bitwright`."""
    program = "import json, sys, bitwright as b; print(json.dumps({'loaded': [*sys.modules], 'dir': dir(b), 'all': [*vars(b).get('__all__', ())]}))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def test_import_is_light() -> None:
    loaded = {name.split(".")[0] for name in imported_bitwright()["loaded"]} & {*LIGHT_IMPORT_FORBIDS}
    assert not loaded, f"{PACKAGE}/__init__.py:1: 'import {PACKAGE}' loads {', '.join(sorted(loaded))}: look names up when they are asked for"


def test_help_is_light() -> None:
    """`bitwright --help` loads only what it needs before anything is asked."""
    program = "import json, sys, bitwright.cli.commands; print(json.dumps([*sys.modules]))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(ran.stdout)} & {*LIGHT_IMPORT_FORBIDS, "numpy"} - {"typer"}
    assert not loaded, f"{PACKAGE}/cli.py:1: the command line loads {', '.join(sorted(loaded))}: ask the pipeline for it"


def test_few_public_names() -> None:
    seen = imported_bitwright()
    public = {name for name in (*seen["dir"], *seen["all"]) if not name.startswith("_")}
    told = f"{PACKAGE}/__init__.py:1: {len(public)} public names, {PUBLIC_NAMES_AT_MOST} at most: {', '.join(sorted(public))}"
    assert len(public) <= PUBLIC_NAMES_AT_MOST, told
