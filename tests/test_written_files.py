"""Overwriting: only what Bitwright wrote is replaced, and nothing is written over, into or around what it is made from."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bitwright import written_files
from bitwright.errors import BrokenPromiseError, OutputError
from bitwright.written_files import (
    LOCK,
    NOT_WRITTEN,
    RECORD,
    digest,
    is_as_written,
    publish_text,
    publishing,
    publishing_together,
    require_apart,
    require_as_written,
    require_replaceable,
    withdraw,
    written,
)
from tests.sentences import sentence


def folder(path: Path, text: str = "weights") -> Path:
    """A result of two files, one of them deeper."""
    with publishing(path, "model") as part:
        (part / "deep").mkdir(parents=True)
        (part / "config.json").write_text("{}")
        (part / "deep" / "weights").write_text(text)
    return path


def contents(root: Path) -> dict[str, bytes]:
    """Return everything below a folder but the records, by its path; links by where they lead."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name != RECORD and (path.is_symlink() or path.is_file()):
            found[path.relative_to(root).as_posix()] = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    return found


def test_a_result_replaces_the_one_before_it(tmp_path: Path) -> None:
    publish_text(tmp_path / "a", "older", kind="plan")
    publish_text(tmp_path / "a", "newer", kind="plan")
    folder(tmp_path / "m")
    folder(tmp_path / "m", "other weights")
    assert contents(tmp_path) == {"a": b"newer", "m/config.json": b"{}", "m/deep/weights": b"other weights"}
    files = ("config.json", "deep/weights")
    assert written(tmp_path / "m").files == {name: (digest(tmp_path / "m" / name),) for name in files}
    assert is_as_written(tmp_path / "m", "model")
    assert not is_as_written(tmp_path / "m", "plan")
    assert is_as_written(tmp_path / "a", "plan")


def one_more(path: Path) -> None:
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "optimizer.pt").write_bytes(b"a stranger's")


def edited(path: Path) -> None:
    (path / "config.json").write_text('{"mine": 1}')


def linked(path: Path) -> None:
    (path / "link").symlink_to(path / "config.json")


def empty(path: Path) -> None:
    (path / "an empty one").mkdir()


def swapped(path: Path) -> None:
    (path / "config.json").unlink()
    (path / "config.json").symlink_to("deep/weights")


@pytest.mark.parametrize("change", [one_more, edited, linked, empty, swapped])
def test_a_folder_that_is_not_as_it_was_written_stays_and_the_file_is_named(change: Callable[[Path], None], tmp_path: Path) -> None:
    change(folder(tmp_path / "m"))
    before = contents(tmp_path)
    with pytest.raises(OutputError) as refused:
        require_replaceable(tmp_path / "m", "model")
    name = {one_more: "optimizer.pt", linked: "link", empty: "an empty one"}.get(change, "config.json")
    sentence(refused.value, name, "remove it yourself")
    with pytest.raises(OutputError):
        folder(tmp_path / "m", "other weights")
    assert contents(tmp_path) == before


def test_a_change_while_the_next_is_written_is_noticed(tmp_path: Path) -> None:
    folder(tmp_path / "m")

    def changed_meanwhile() -> None:
        with publishing(tmp_path / "m", "model") as part:
            part.mkdir()
            one_more(tmp_path / "m")

    with pytest.raises(OutputError, match="optimizer"):
        changed_meanwhile()
    assert "m/checkpoints/optimizer.pt" in contents(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != RECORD] == ["m"]


def strange_file(path: Path) -> None:
    path.write_bytes(b"a stranger's")


def strange_folder(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_ours(path: Path) -> None:
    publish_text(path.with_name("ours"), "text", kind="plan")
    path.symlink_to("ours")


@pytest.mark.parametrize("make", [strange_file, strange_folder, dangling, link_to_ours, os.mkfifo])
def test_what_bitwright_did_not_write_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a")
    before = contents(tmp_path)
    with pytest.raises(OutputError) as refused:
        publish_text(tmp_path / "a", "text", kind="plan")
    sentence(refused.value, tmp_path / "a")
    assert contents(tmp_path) == before
    assert os.path.lexists(tmp_path / "a")


@pytest.mark.parametrize("name", [RECORD, LOCK, ".LOCK"])
def test_a_record_is_no_name_for_a_result(name: str, tmp_path: Path) -> None:
    for content in ("", None, "somebody's"):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(OutputError) as refused:
            publish_text(tmp_path / name, "a plan", kind="plan")
        sentence(refused.value, tmp_path / name, "choose another name")
    assert (tmp_path / name).read_text() == "somebody's"


def test_a_device_stays_a_device() -> None:
    with pytest.raises(OutputError, match="device"):
        require_replaceable(Path("/dev/null"), "plan")


def test_a_plan_does_not_replace_a_model(tmp_path: Path) -> None:
    folder(tmp_path / "m")
    with pytest.raises(OutputError, match="is a model, and this is a plan"):
        require_replaceable(tmp_path / "m", "plan")


def test_what_is_empty_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "a").touch()
    folder(tmp_path / "m")
    publish_text(tmp_path / "a", "text", kind="plan")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError):
        publish_text(tmp_path / "empty", "text", kind="plan")


def test_a_kill_between_record_and_name_leaves_nothing_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_text(tmp_path / "a", "older", kind="plan")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bitwright.written_files._put", killed)
        with pytest.raises(KeyboardInterrupt):
            publish_text(tmp_path / "a", "newer", kind="plan")
    assert (tmp_path / "a").read_text() == "older"
    for text in ("older", "newer"):
        (tmp_path / "a").write_text(text)
        require_replaceable(tmp_path / "a", "plan")


def test_what_is_withdrawn_is_forgotten(tmp_path: Path) -> None:
    withdraw(folder(tmp_path / "m"))
    assert written(tmp_path / "m") == NOT_WRITTEN
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 1}', '{"schema_version": 2, "results": {}}', "[" * 100_000])
def test_a_record_that_is_none_allows_nothing_and_stays(text: str, tmp_path: Path) -> None:
    publish_text(tmp_path / "a", "older", kind="plan")
    (tmp_path / RECORD).write_text(text)
    for name in ("a", "b"):
        with pytest.raises(OutputError):
            publish_text(tmp_path / name, "newer", kind="plan")
    assert contents(tmp_path) == {"a": b"older"}
    assert (tmp_path / RECORD).read_text() == text


def test_the_record_forgets_what_is_gone(tmp_path: Path) -> None:
    publish_text(tmp_path / "a", "text", kind="plan")
    (tmp_path / "a").unlink()
    publish_text(tmp_path / "b", "text", kind="plan")
    assert list(json.loads((tmp_path / RECORD).read_text())["results"]) == ["b"]


# --- apart from what is read


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder one of whose files is a link to elsewhere, as in a cache."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_bytes(b"weights")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").symlink_to("../blobs/1234")
    return tmp_path / "model"


OUTPUTS = ("model", "model/run", "model/deep/er/a.gguf", "model/model.safetensors", "blobs/1234", "blobs", ".", "blobs/../model/x")


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_result_is_in_or_around_what_is_read(output: str, model: Path) -> None:
    with pytest.raises(OutputError) as refused:
        require_apart([model.parent / output], [model])
    sentence(refused.value, model, "which is read")


def test_links_make_no_difference(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    os.link(model / "config.json", tmp_path / "hard")
    for output, read in (("link", model), ("link/a", model), ("model/a", tmp_path / "link"), ("hard", model / "config.json"), ("hard", model)):
        with pytest.raises(OutputError):
            require_apart([tmp_path / output], [read])


def test_what_lies_beside_is_apart(model: Path, tmp_path: Path) -> None:
    require_apart([tmp_path / "model.gguf", tmp_path / "out" / "model", tmp_path / "blobs" / "new"], [model, model / "config.json"])


def test_a_moved_result_is_a_stranger_in_its_new_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.move(folder(tmp_path / "m"), tmp_path / "other" / "m")
    with pytest.raises(OutputError, match="did not write"):
        require_replaceable(tmp_path / "other" / "m", "model")


@pytest.mark.parametrize("name", ["model.gguf", "model"])
def test_any_flipped_bit_of_a_result_is_noticed(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    with publishing(place, "model") as part:
        if place.suffix:
            part.write_bytes(bytes(range(256)) * 40)
        else:
            (part / "deeper").mkdir(parents=True)
            (part / "config.json").write_text("{}", encoding="utf-8")
            (part / "deeper" / "a file.safetensors").write_bytes(b"\0" * 1000)
    assert require_as_written(place)
    for file in [path for path in (place, *place.rglob("*")) if path.is_file()]:
        whole = file.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(BrokenPromiseError) as caught:
                require_as_written(place)
            sentence(caught.value, file)
        file.write_bytes(whole)
    assert require_as_written(place)


def test_a_file_that_is_new_or_gone_is_noticed_and_what_has_no_record_is_not_compared(tmp_path: Path) -> None:
    place = tmp_path / "model"
    with publishing(place, "model") as part:
        part.mkdir()
        (part / "config.json").write_text("{}", encoding="utf-8")
    (place / "more").write_bytes(b"")
    with pytest.raises(BrokenPromiseError, match="more"):
        require_as_written(place)
    (place / "more").unlink()
    (place / "config.json").unlink()
    with pytest.raises(BrokenPromiseError, match=r"config\.json"):
        require_as_written(place)
    assert not require_as_written(tmp_path / "another")


def write_together(places: list[Path], text: str) -> None:
    with publishing_together(places, "model") as parts:
        for part in parts:
            part.write_text(text)


def test_results_that_belong_together_are_all_replaced_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("a", "b", "c")]

    write_together(places, "old")
    put = written_files._put

    def fails_at_the_first(part: Path, place: Path) -> None:
        if place == places[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(place))
        put(part, place)

    monkeypatch.setattr(written_files, "_put", fails_at_the_first)
    with pytest.raises(OutputError):
        write_together(places, "new")
    assert [place.read_text() for place in places] == ["old"] * 3
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", RECORD}
    monkeypatch.undo()
    write_together(places, "new")
    assert all(is_as_written(place, "model") for place in places)
    assert [place.read_text() for place in places] == ["new"] * 3


def test_a_kill_between_the_names_of_new_results_leaves_none_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("a", "b", "c")]
    put = written_files._put

    def killed_at_the_first(part: Path, place: Path) -> None:
        if place == places[0]:
            raise KeyboardInterrupt
        put(part, place)

    monkeypatch.setattr(written_files, "_put", killed_at_the_first)
    with pytest.raises(KeyboardInterrupt):
        write_together(places, "new")
    assert [place.exists() for place in places] == [False, True, True]
    for place in places:
        require_replaceable(place, "model")


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    publish_text(tmp_path / "a" / "b.txt", "naïve\n", kind="export")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "naïve\n"
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "b.txt", tmp_path / "folder"):
        with pytest.raises(OutputError) as refused:
            publish_text(path, "text", kind="export")
        sentence(refused.value, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file", "folder"]
