"""The documentation is run: every Python block, every command that a block names, every file that a page points to."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bitwright.cli import commands as cli
from bitwright.devices.device import read_device, read_devices
from bitwright.spaces import read_plan

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: What may stand behind the three ticks; anything else would be a block that no test looks at.
LANGUAGES = {"python", "sh", "console", "json", "toml", "text", ""}
BLOCK = re.compile(r"^([ ]*)```(\w*)[ ]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)")
COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page on which the text begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(found[2], found[3], text[: found.start(3)].count("\n") + 1) for found in BLOCK.finditer(text)]


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block as words; in `console` blocks only the lines behind a `$`, with those that continue them, are typed."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
    lexer = shlex.shlex(COMMENT.sub("", text), posix=True, punctuation_chars=";&|\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set(";&|\n"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word):  # `NAME=value` before a command
            words.append(word)


def require_known(words: list[str]) -> None:
    """Refuse a command of this project that could not be typed like this."""
    match Path(words[0]).name, words[1:]:
        case "bitwright", arguments:
            group: Any = typer.main.get_command(cli.app)
            if arguments != ["--help"]:
                assert arguments, "a command of `bitwright` must be named"
                assert arguments[0] in group.commands, f"bitwright has no command '{arguments[0]}'"
                if "--help" not in arguments:
                    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])  # raises what typer would tell
        case "python" | "python3", [script, *options] if script.endswith(".py"):
            require_options(script, options, with_siblings(ROOT / script))
        case "python" | "python3", ["-m", module, *options] if (main := ROOT.joinpath(*module.split("."), "__main__.py")).is_file():
            require_options(f"python -m {module}", options, main.read_text(encoding="utf-8"))
        case "make", arguments:
            known = TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
            assert {word for word in arguments if "=" not in word} <= set(known), f"make knows {known}"


def require_options(program: str, options: list[str], source: str) -> None:
    """Refuse options that the `source` of a program does not declare."""
    unknown = [option for option in options if option.startswith("--") and option != "--help" and f'"{option.split("=")[0]}"' not in source]
    assert not unknown, f"{program} has no {unknown}"


def with_siblings(script: Path) -> str:
    """The text of a script, and of the scripts beside it that it or they import from, where some of its options may be declared."""
    found, left = dict[Path, str](), [script]
    while left:
        path = left.pop()
        found[path] = path.read_text(encoding="utf-8")
        beside = (path.with_name(f"{module}.py") for module in re.findall(r"^from (\w+) import", found[path], re.MULTILINE))
        left += [other for other in beside if other.exists() and other not in {*found, *left}]
    return "".join(found.values())


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a `model.gguf`, no network, and one thread for llama.cpp.

    The README names no formats, and so gets a model that only the quick ones fit.
    """
    model: Path = request.getfixturevalue("gguf_96" if page == README else "gguf_256")
    shutil.copy(model, tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_found_and_of_a_known_language(page: Path) -> None:
    n_fences = sum(line.strip().startswith("```") for line in page.read_text(encoding="utf-8").splitlines())
    assert n_fences == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= LANGUAGES


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.language == "python" for block in blocks(page))], ids=name)
@pytest.mark.usefixtures("folder")
def test_python_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, name(page), "exec"), namespace)  # line numbers are the page's


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_can_be_typed(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("sh", "console"):
            typed = list(commands(block))
            assert typed, f"{name(page)}:{block.line}: no command; lines to type in a `console` block begin with `$ `"
            for words in typed:
                require_known(words)
        elif block.language != "python":
            stray = re.findall(r"^ *(?:\$ )?bitwright [a-z]+ .*", block.text, re.MULTILINE)
            assert not stray, f"{name(page)}:{block.line}: commands belong in an `sh` or `console` block"


def test_profiles_and_fleets_are_read(tmp_path: Path) -> None:
    shown = [block.text for block in blocks(ROOT / "docs" / "devices.md") if block.language == "toml"]
    assert len(shown) == 2
    for text in shown:
        (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
        assert read_devices(tmp_path / "shown.toml") if "[[device]]" in text else read_device(str(tmp_path / "shown.toml"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_json_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not broken


def test_the_plan_that_is_shown_is_one(tmp_path: Path) -> None:
    shown = [block.text for block in blocks(ROOT / "docs" / "plan.md") if block.language == "json"]
    assert shown
    (tmp_path / "plan.json").write_text(shown[0], encoding="utf-8")
    assert json.loads(read_plan(tmp_path / "plan.json").to_json()) == json.loads(shown[0])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("bitwright sing model.gguf", "no command 'sing'"),
        ("bitwright fit model.gguf --budget 90MB", "Missing parameter: out_folder"),
        ("bitwright fit model.gguf --budget 90MB --out run --sensitivty weight", "--sensitivty"),
        ("FOO=1 .venv/bin/bitwright front", "Missing parameter: run"),
        ("cd somewhere && bitwright front run extra", "extra"),
        ("bitwright front run  # well\nbitwright front run \\\n  --jsn", "--jsn"),
        ("python benchmarks/solvers.py --no-such-option", "--no-such-option"),
        ("python benchmarks/no_such_script.py", "no_such_script"),
        ("python -m benchmarks.families DIR --no-such-option", "--no-such-option"),
        ("make coffee", "make knows"),
    ],
)
def test_a_wrong_command_is_noticed(typed: str, told: str) -> None:
    typed_commands = list(commands(Block("sh", f"{typed}  # a comment\n", 1)))
    with pytest.raises(Exception, match=told):
        _ = [require_known(words) for words in typed_commands]
