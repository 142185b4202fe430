"""Documents as they stand in files, row by row; what is no text is refused by its place."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitwright.errors import LibraryError, TextError
from bitwright.objectives import between_commas, dataset_documents, is_file, read_documents
from bitwright.objectives.text.documents import Chat
from tests.sentences import sentence

# --- files


def test_a_text_is_one_document_or_as_many_as_it_marks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n<|endoftext|>\nthree<|endoftext|> \n", encoding="utf-8")
    assert read_documents(tmp_path / "a.txt") == ["one\ntwo", "three"]


def test_each_line_of_json_is_a_document(tmp_path: Path) -> None:
    lines = [{"text": "naïve"}, {"text": " two\nlines ", "id": 3}, {"text": ""}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert read_documents(tmp_path / "a.jsonl") == ["naïve", "two\nlines"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "must not be empty"),
        ("blank.txt", b" \n <|endoftext|>\n", "must not be empty"),
        ("latin.txt", "naïve".encode("latin-1"), "must be UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": ', "'text'"),
        ("other.jsonl", b'{"words": "a"}', "'text'"),
        ("list.jsonl", b'["a"]', "'text'"),
        ("number.jsonl", b"3", "'text'"),
        ("empty.jsonl", b"\n", "must not be empty"),
        ("wide.txt", "plain letters".encode("utf-16-le"), "zero byte (byte 1)"),
        ("wide.jsonl", '{"text": "a"}'.encode("utf-16-be"), "zero byte (byte 0)"),
        ("zeros.txt", b"words\x00\x00", "zero byte (byte 5)"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError) as refused:
        read_documents(tmp_path / name)
    sentence(refused.value, tmp_path / name, said)


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TextError) as refused:
        read_documents(tmp_path / name)
    sentence(refused.value, tmp_path / name, "must be a readable file")


# --- datasets


def library(load: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda name: SimpleNamespace(load_dataset=load) if name == "datasets" else pytest.fail(name)


def missing(name: str) -> Any:
    raise ImportError(name)


def test_without_the_package_a_dataset_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.objectives.text.documents.importlib.import_module", missing)
    with pytest.raises(LibraryError) as refused:
        dataset_documents("org/words")
    sentence(refused.value, "'org/words'", "install datasets")


def test_a_dataset_is_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*args: object, **options: object) -> list[dict[str, str]]:
        asked.append((args, options))
        return [{"text": " a ", "body": "x"}, {"text": "  ", "body": "y"}, {"text": "b", "body": "z"}]

    monkeypatch.setattr("bitwright.objectives.text.documents.importlib.import_module", library(load))
    assert dataset_documents("org/words") == ["a", "b"]
    assert dataset_documents("org/words:small:test:body") == ["x", "y", "z"]
    assert asked == [
        (("org/words", None), {"split": "train", "streaming": True}),
        (("org/words", "small"), {"split": "test", "streaming": True}),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [(ConnectionError("no network"), "no network"), ([{"words": "a"}], "'text'"), ([{"text": " "}], "must not be empty"), ([], "empty")],
)
def test_a_dataset_without_text_is_refused(monkeypatch: pytest.MonkeyPatch, given: Exception | list[dict[str, str]], said: str) -> None:
    def load(*_: object, **__: object) -> list[dict[str, str]]:
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr("bitwright.objectives.text.documents.importlib.import_module", library(load))
    with pytest.raises(TextError) as refused:
        dataset_documents("org/words")
    sentence(refused.value, "org/words", said)


def test_datasets_is_not_loaded_by_itself() -> None:
    assert "datasets" not in sys.modules


# --- what is no text, and what only looks like an end of a line

SAID = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jsonlines", "a.ndjson", "a.json"])
def test_separators_inside_strings_end_no_line(tmp_path: Path, name: str) -> None:
    texts = [f"one{mark}two" for mark in "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"]
    lines = (
        "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts[:3])
        + "\n"
        + "\n".join(json.dumps({"text": text}) for text in texts[3:])
    )
    (tmp_path / name).write_bytes(lines.encode())
    assert read_documents(tmp_path / name) == texts


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    content = "naïve" if name == "a.txt" else '{"text": "naïve"}'
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_documents(tmp_path / name) == ["naïve"]


def test_a_file_of_json_is_a_list_or_an_object_or_lines(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    for name, content in (("list", json.dumps(rows, indent=2)), ("lines", "\n".join(map(json.dumps, rows)))):
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
        assert read_documents(tmp_path / f"{name}.json") == ["a", "b"]
    (tmp_path / "one.json").write_text('{\n"text": "a"}', encoding="utf-8")
    assert read_documents(tmp_path / "one.json") == ["a"]


def test_the_column_may_be_another(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "b", "text": "t", "messages": SAID}), encoding="utf-8")
    assert read_documents(path) == ["t"]
    assert read_documents(path, "body") == ["b"]
    assert read_documents(path, "messages") == [Chat(tuple(SAID), f"line 1 of {path}")]
    path.write_text(json.dumps({"messages": SAID}), encoding="utf-8")
    assert read_documents(path) == [Chat(tuple(SAID), f"line 1 of {path}")]
    with pytest.raises(TextError) as refused:
        read_documents(path, "body")
    sentence(refused.value, "'body'", "'messages'", "--text-column", path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"text": null}', "null"),
        ('{"text": 3}', "a number"),
        ('{"text": true}', "true or false"),
        ('{"text": ["a", "b"]}', "a list of something else"),
        ('{"text": []}', "a list of something else"),
        ('{"text": {"a": 1}}', "an object"),
        ('{"text": [{"role": "user"}]}', "a list of something else"),
        ('{"text": [{"role": 1, "content": "a"}]}', "a list of something else"),
        ('"a"', "a text"),
        ("null", "null"),
        ("[" * 100_000, "line 2 of"),
        ("9" * 5_000, "line 2 of"),
        ('{"text": "a\\ud800b"}', "half of a pair, \\ud800"),
        ('{"text": [{"role": "user", "content": "\\udc00"}]}', "\\udc00"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{row}\n', encoding="utf-8")
    with pytest.raises(TextError) as refused:
        read_documents(tmp_path / "a.jsonl")
    sentence(refused.value, f"line 2 of {tmp_path / 'a.jsonl'}", said)


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude42"}', encoding="utf-8")
    assert read_documents(tmp_path / "a.jsonl") == ["🙂"]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV"])
def test_a_sheet_is_no_prose(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("id,text\n1,a\n", encoding="utf-8")
    with pytest.raises(TextError) as refused:
        read_documents(tmp_path / name)
    sentence(refused.value, tmp_path / name, ".jsonl")


def test_a_device_is_no_file() -> None:
    with pytest.raises(TextError) as refused:
        read_documents(Path("/dev/zero"))
    sentence(refused.value, "/dev/zero", "Not a regular file")


# --- tables of Parquet


class Table:
    """Table of two batches, as pyarrow gives it."""

    def __init__(self, _: Path, columns: dict[str, list[Any]]) -> None:
        self.columns, self.schema_arrow = columns, SimpleNamespace(names=list(columns))

    def iter_batches(self, columns: list[str]) -> Iterator[Any]:
        (name,) = columns
        rows = [{name: value} for value in self.columns[name]]
        yield from (SimpleNamespace(to_pylist=lambda part=part: part) for part in (rows[:1], rows[1:]))


def with_pyarrow(monkeypatch: pytest.MonkeyPatch, open_table: Callable[[Path], Any]) -> None:
    monkeypatch.setattr("bitwright.objectives.text.documents.find_spec", lambda name: ModuleSpec(name, None))
    library = SimpleNamespace(ParquetFile=open_table)
    monkeypatch.setattr("bitwright.objectives.text.documents.importlib.import_module", lambda name: {"pyarrow.parquet": library}[name])


def test_a_table_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.PARQUET"
    path.write_bytes(b"PAR1")
    with_pyarrow(monkeypatch, lambda path: Table(path, {"id": [1, 2, 3], "text": ["a", " ", "b"], "chat": [SAID, SAID, None]}))
    assert read_documents(path) == ["a", "b"]
    with pytest.raises(TextError) as refused:
        read_documents(path, "chat")
    sentence(refused.value, f"row 3 of {path}", "null")
    with pytest.raises(TextError) as refused:
        read_documents(path, "words")
    sentence(refused.value, "'words'", "'id', 'text', 'chat'")


def test_a_broken_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Any:
        raise ValueError("Parquet magic bytes not found\nin footer.")

    (tmp_path / "a.parquet").write_bytes(b"no")
    with_pyarrow(monkeypatch, broken)
    with pytest.raises(TextError) as refused:
        read_documents(tmp_path / "a.parquet")
    sentence(refused.value, tmp_path / "a.parquet", "magic bytes not found in footer")


def test_without_the_package_a_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("bitwright.objectives.text.documents.find_spec", lambda _: None)
    with pytest.raises(LibraryError) as refused:
        read_documents(tmp_path / "a.parquet")
    sentence(refused.value, tmp_path / "a.parquet", "pyarrow", "pip install")


# --- names with commas


def test_a_name_may_hold_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a, b,c.txt", "b", "c.txt"):
        Path(name).touch()
    assert between_commas("x,a, b,c.txt,,b", is_file) == ["x", "a, b,c.txt", "b"]
    assert between_commas(" b , c.txt", is_file) == ["b", "c.txt"]
    assert between_commas("", is_file) == []
    assert not is_file("a" * 5000)
    assert not is_file("a\0b")
