import random
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import OutputError, RunError
from bitwright.objectives import Store
from tests.processes import process
from tests.sentences import sentence
from tests.work import fill_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "run.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def put(store: Store, *choice: int, nats: float = 0.1) -> None:
    store.put_measured("t", list(choice), {"kl": np.array([[nats], [2 / 3]]), "flips": np.array([[0.5], [17.25]])}, first=0, seconds=np.float64(3))


def kl(store: Store) -> dict[tuple[int, ...], list[float]]:
    """Return what was measured of every choice."""
    return {choice: values[:, 0].tolist() for choice, (values, _) in store.all_measured("t", "kl").items()}


def reopened(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)


# --- settings


def test_a_run_goes_on_with_its_own_settings(store: Store, path: Path) -> None:
    store.check_settings({"b": "2", "a": "1"})
    store.put_array("x", np.zeros(1))
    again = reopened(store, path)
    again.check_settings({"a": "1", "b": "2"})
    assert list(again.settings().items()) == [("b", "2"), ("a", "1")]
    again.close()


def test_every_setting_that_differs_is_named(store: Store, path: Path) -> None:
    store.check_settings({"seed": "1", "model": "abc", "target": "t"})
    store.put_array("x", np.zeros(1))
    with pytest.raises(RunError) as refused:
        store.check_settings({"seed": "2", "model": "abc", "target": "u", "formats": "all"})
    message = sentence(refused.value, path.parent, "seed was 1 and is now 2", "target was t and is now u", "formats was absent and is now all")
    assert "model" not in message
    assert store.settings() == {"seed": "1", "model": "abc", "target": "t"}


def test_a_run_without_results_may_change_its_settings(store: Store) -> None:
    store.check_settings({"calibration": "empty.txt"})
    store.check_settings({"calibration": "full.txt"})
    assert store.settings() == {"calibration": "full.txt"}


# --- what is kept


@pytest.mark.parametrize(
    "values", [np.arange(6.0).reshape(2, 3), np.array([[True, False]]), np.array(0.1), np.array([np.nan, np.inf]), np.zeros((0, 3), dtype=np.int64)]
)
def test_arrays_come_back_as_they_were(store: Store, path: Path, values: np.ndarray) -> None:
    assert not store.has_array("x")
    store.put_array("x", values)
    again = reopened(store, path)
    assert again.has_array("x")
    found = again.array("x")
    assert (found.dtype, found.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(found, values)
    again.close()


def test_measurements_come_back_exactly_and_in_order(store: Store, path: Path) -> None:
    for choice, nats in (((2, 1), 0.1), ((0, 0), 1 / 3), ((1, 1), 5e-324)):
        put(store, *choice, nats=nats)
    again = reopened(store, path)
    assert list(kl(again).items()) == [((2, 1), [0.1, 2 / 3]), ((0, 0), [1 / 3, 2 / 3]), ((1, 1), [5e-324, 2 / 3])]
    again.close()


def test_parts_of_a_text_are_joined_for_each_objective(store: Store) -> None:
    put(store, 1, 2)
    store.put_measured("t", [1, 2], {"kl": np.array([[7.0]])}, first=2, seconds=1.0)
    values, seconds = store.measured("t", "kl", [1, 2])
    assert (values[:, 0].tolist(), seconds) == ([0.1, 2 / 3, 7.0], 2.5)
    values, seconds = store.measured("t", "flips", [1, 2])
    assert (values[:, 0].tolist(), seconds) == ([0.5, 17.25], 1.5)
    for nothing in (store.measured("other", "kl", [1, 2]), store.measured("t", "kl", [2, 1]), store.measured("t", "perplexity", [1, 2])):
        assert (nothing[0].shape, nothing[1]) == ((0, 1), 0)


def test_texts_and_arrays_are_replaced(store: Store) -> None:
    store.put_text("name", "old")
    store.put_text("name", "naïve\n'; drop table texts")
    assert store.text("name") == "naïve\n'; drop table texts"
    store.put_array("x", np.zeros(3))
    store.put_array("x", np.ones(2))
    assert store.array("x").tolist() == [1, 1]


def test_a_missing_result_is_an_unfinished_run(store: Store, path: Path) -> None:
    for ask in (store.text, store.array):
        with pytest.raises(RunError) as refused:
            ask("prices")
        sentence(refused.value, path.parent, "prices")


def test_a_stage_that_is_gone_on_with_adds_up(store: Store) -> None:
    store.put_stage("load", seconds=1.5, n_tokens=0, peak_memory_bytes=5)
    store.put_stage("gradient", seconds=1.0, n_tokens=10, peak_memory_bytes=9)
    store.put_stage("gradient", seconds=2.0, n_tokens=20, peak_memory_bytes=7)
    found = {name: rest for name, *rest in store.stages()}
    assert found == {"load": [1.5, 0, 5], "gradient": [3.0, 30, 9]}


# --- safety


def test_a_finished_piece_of_work_is_there_for_others_at_once(store: Store, path: Path) -> None:
    """Every piece is a transaction: nothing waits for a later commit."""
    other = Store(path)
    for i in range(3):
        put(store, i)
        assert len(kl(other)) == i + 1
        store.put_array(str(i), np.zeros(i))
        assert other.has_array(str(i))
    other.close()


def test_a_transaction_is_stored_whole_or_not_at_all(store: Store) -> None:
    """The second row cannot be written, so the first is not there either."""
    unknown = object()
    with pytest.raises(sqlite3.Error):
        store.check_settings({"a": "1", "b": unknown})  # type: ignore[dict-item]
    assert store.settings() == {}


@pytest.mark.slow
def test_a_killed_process_leaves_all_that_it_finished(path: Path) -> None:
    moments = random.Random(0)
    told = -1
    for _ in range(3):
        path.unlink(missing_ok=True)
        with process(fill_store, path) as other:
            told = max(islice(other.news(60), moments.randrange(5, 60)))
            other.kill()
        store = Store(path)
        found = list(store.all_measured("text", "kl").items())
        n_arrays = sum(store.has_array(f"array {i}") for i in range(len(found) + 1))
        for i in range(n_arrays):
            np.testing.assert_array_equal(store.array(f"array {i}"), np.full(60_000, i))
        put(store, 9, 9)
        store.close()
        assert [choice for choice, _ in found] == [(i,) for i in range(len(found))]
        assert all(values.tolist() == [[i]] * 200 for i, (_, (values, _)) in enumerate(found))
        assert len(found) > told
        assert told <= n_arrays <= len(found)
        with sqlite3.connect(path) as check:
            assert check.execute("pragma integrity_check").fetchall() == [("ok",)]
        check.close()
        for extra in path.parent.glob("run.sqlite-*"):
            extra.unlink()


def test_a_file_that_is_no_database_is_no_run(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely, and long enough to have a header" * 100)
    with pytest.raises(RunError) as refused:
        Store(path)
    sentence(refused.value, path)


def test_a_damaged_database_is_no_run(store: Store, path: Path) -> None:
    """The header is whole, so the damage shows when something is read."""
    for i in range(50):
        store.put_array(f"{i}", np.arange(2_000.0))
        put(store, i)
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(0).randbytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(RunError) as refused:
        Store(path).all_measured("t", "kl")
    sentence(refused.value, path)


def test_a_damaged_schema_is_told_on_one_line(store: Store, path: Path) -> None:
    """SQLite's message repeats what it takes for the name of a table, which may have several lines."""
    store.close()
    with sqlite3.connect(path) as damaged:
        damaged.execute("pragma writable_schema = on")
        damaged.execute("update sqlite_master set name = 'two' || char(10) || 'lines', sql = 'nothing' where name = 'measurements'")
    damaged.close()
    with pytest.raises(RunError) as refused:
        Store(path)
    sentence(refused.value, path, "two\\nlines")


def test_a_database_of_another_program_is_no_run_and_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("create table measurements (id integer primary key, text text)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(RunError) as refused:
        Store(path)
    sentence(refused.value, path, "another program")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "older", ["alter table arrays drop column digest; pragma application_id = 0", "pragma user_version = 9", "pragma user_version = 1"]
)
def test_a_run_of_another_version_is_refused(store: Store, path: Path, older: str) -> None:
    store.close()
    with sqlite3.connect(path) as other:
        other.executescript(older)
    other.close()
    with pytest.raises(RunError) as refused:
        Store(path)
    sentence(refused.value, path, "of this version", "--out")


# what changes one row of a table, and what reads it
CHANGES: list[tuple[str, Callable[[Store], object]]] = [
    ("update settings set value = '2'", lambda store: store.settings()),
    ("update texts set text = 'other'", lambda store: store.text("name")),
    ("update texts set text = 7", lambda store: store.texts("name")),
    ("update arrays set data = cast(replace(hex(data), '05', '04') as blob)", lambda store: store.array("x")),
    ("update arrays set data = zeroblob(3)", lambda store: store.array("x")),
    ("update measurements set seconds = 3", lambda store: store.measured("t", "kl", [1, 2])),
    ("update measurements set data = x'00'", lambda store: store.all_measured("t", "kl")),
    ("update measurements set choice = '[2, 1]'", lambda store: store.all_measured("t", "flips")),
    ("update stages set n_tokens = n_tokens + 1", lambda store: store.stages()),
    ("update stages set digest = x''", lambda store: store.put_stage("load", seconds=1, n_tokens=0, peak_memory_bytes=0)),
]


@pytest.mark.parametrize(("change", "read"), CHANGES, ids=[change for change, _ in CHANGES])
def test_a_changed_value_is_noticed_when_it_is_read(store: Store, path: Path, change: str, read: Callable[[Store], object]) -> None:
    store.check_settings({"seed": "1"})
    store.put_text("name", "text")
    store.put_array("x", np.full(3, 5, dtype=np.uint8))
    put(store, 1, 2)
    store.put_stage("load", seconds=1, n_tokens=np.int64(5), peak_memory_bytes=7)  # type: ignore[arg-type]
    read(store)
    with sqlite3.connect(path) as other:
        other.executescript(change)
    other.close()
    with pytest.raises(RunError) as refused:
        read(store)
    sentence(refused.value, path, "changed since")


@pytest.mark.slow
def test_no_mutation_of_a_run_is_a_traceback_or_another_value(path: Path) -> None:
    """Bytes anywhere in the file: what is read is what was written, or nothing, or a sentence."""
    store = Store(path)
    store.check_settings({"seed": "1"})
    for i in range(6):
        store.put_array(str(i), np.arange(40.0) + i)
        put(store, i)
    store._db.execute("pragma wal_checkpoint(truncate)")
    store.close()
    whole, rng = path.read_bytes(), random.Random(3)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 20))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        for extra in path.parent.glob("run.sqlite-*"):
            extra.unlink()
        try:
            found = Store(path)
        except (RunError, OutputError):
            continue
        try:
            assert kl(found).items() <= {(i,): [0.1, 2 / 3] for i in range(6)}.items()
            assert found.settings() in ({}, {"seed": "1"})
            for i in range(6):
                if found.has_array(str(i)):
                    np.testing.assert_array_equal(found.array(str(i)), np.arange(40.0) + i)
            put(found, 9)
        except (RunError, OutputError):
            pass
        finally:
            found.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as refused:
        Store(tmp_path / "file" / "run" / "run.sqlite")
    sentence(refused.value, tmp_path / "file" / "run", "--out")


def test_a_full_disk_is_an_error(store: Store, path: Path) -> None:
    store.put_array("before", np.zeros(3))
    store._db.execute("pragma max_page_count = 1")  # what SQLite is left with when no page can be added
    with pytest.raises(OutputError) as refused:
        store.put_array("large", np.zeros(100_000))
    sentence(refused.value, path.parent, "full")
    assert store.has_array("before")
    assert not store.has_array("large")
