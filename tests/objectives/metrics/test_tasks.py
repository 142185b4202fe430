import json
from pathlib import Path

import pytest

from bitwright.errors import TextError
from bitwright.objectives.metrics.tasks import Item, Task, read_task
from tests.sentences import sentence

CHOICES = {"query": "Question: What is frozen water?\n", "choices": ["ice", "fire"], "gold": 0}
CONTEXTS = {"context_options": ["The trophy was too big so the trophy", "The trophy was too big so the case"], "continuation": "stayed.", "gold": 0}
CLOZE = {"context": "Once upon a", "continuation": "time"}
HELLASWAG = "A man sits on a roof. He\n3\neats it.\nsings.\nflies away.\nlifts tiles off.\n"


def written(folder: Path, *items: object) -> Path:
    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n\n", encoding="utf-8")
    return folder / "quiz.jsonl"


def test_every_kind_of_item_is_texts_to_be_continued(tmp_path: Path) -> None:
    found = read_task(written(tmp_path, CHOICES, CONTEXTS, CLOZE, {**CHOICES, "query": "Water is ", "source": "book"}))
    asked = "Question: What is frozen water?\nAnswer:"
    first, second = CONTEXTS["context_options"]
    assert found == Task(
        str(tmp_path / "quiz.jsonl"),
        (
            Item(((asked, " ice"), (asked, " fire")), 0),
            Item(((first, " stayed."), (second, " stayed.")), 0),
            Item((("Once upon a", " time"),), 0),
            Item((("Water is", " ice"), ("Water is", " fire")), 0),
        ),
    )


def test_other_files_have_six_lines_an_item(tmp_path: Path) -> None:
    path = tmp_path / "endings.txt"
    path.write_text(HELLASWAG * 2, encoding="utf-8")
    found = read_task(path)
    assert (found.name, len(found.items), found.items[1].gold) == (str(path), 2, 3)
    assert found.items[0].options[3] == ("A man sits on a roof. He", " lifts tiles off.")


def test_the_first_items_are_a_task_of_another_name(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, CHOICES, CONTEXTS, CLOZE))
    assert task.first(2) == Task(f"{task.name} (first 2)", task.items[:2])
    assert task.first(3) == task.first(9) == task


@pytest.mark.parametrize(
    "item",
    [
        {**CHOICES, "gold": 2},
        {**CHOICES, "gold": -1},
        {**CHOICES, "gold": "0"},
        {**CHOICES, "choices": ["ice"]},
        {**CHOICES, "choices": ["ice", "fire", 3]},
        {**CHOICES, "choices": ["ice", " "]},
        {"query": "What?", "choices": ["ice", "fire"]},
        {**CONTEXTS, "context_options": ["a", 1]},
        {**CONTEXTS, "context_options": ["a", "b", 1]},
        {**CONTEXTS, "continuation": 1},
        {"context": "Once"},
        ["Once", "upon"],
        "Once",
    ],
)
def test_a_broken_item_is_named(tmp_path: Path, item: object) -> None:
    path = written(tmp_path, CHOICES, item)
    with pytest.raises(TextError) as refused:
        read_task(path)
    sentence(refused.value, "item 2", path)


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", "{"), ("a.txt", HELLASWAG + "one\n1\na\nb\nc\n"), ("a.txt", HELLASWAG.replace("3", "four"))])
def test_text_that_is_no_task_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TextError) as refused:
        read_task(tmp_path / name)
    sentence(refused.value, "item", tmp_path / name)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("café\n0\na\nb\nc\nd".encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("\n \n", encoding="utf-8")
    for name, told in (("absent.jsonl", "No such file"), ("latin.txt", "byte 3"), ("empty.jsonl", "empty"), (".", "directory")):
        with pytest.raises(TextError) as refused:
            read_task(tmp_path / name)
        sentence(refused.value, told, tmp_path / name)


def test_a_task_is_read_by_lines_alone(tmp_path: Path) -> None:
    item = {"query": "one\u2028two\u0085three", "choices": ["a", "b"], "gold": 1}
    (tmp_path / "a.JSONL").write_bytes(b"\xef\xbb\xbf" + json.dumps(item, ensure_ascii=False).encode() + b"\r\n")
    assert read_task(tmp_path / "a.JSONL").items == (Item((("one\u2028two\u0085three", " a"), ("one\u2028two\u0085three", " b")), 1),)
    for broken in ('{"context": "a", "continuation": "\\ud800"}', "[" * 100_000):
        (tmp_path / "b.jsonl").write_text(broken, encoding="utf-8")
        with pytest.raises(TextError) as refused:
            read_task(tmp_path / "b.jsonl")
        sentence(refused.value, f"item 1 of {tmp_path / 'b.jsonl'}")
