"""Results of a run in one SQLite file, one transaction for each finished piece of work, so that a run killed at any moment resumes from there."""

import io
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import OutputError, RunError
from bitwright.objectives.measurement import Measurement

_TABLES = """
create table if not exists settings (name text primary key, value text not null);
create table if not exists texts (name text primary key, text text not null);
create table if not exists arrays (name text primary key, data blob not null);
create table if not exists measurements (id integer primary key, choice text unique not null, record text not null);
create table if not exists evaluations (
    text text, choice text, first integer, data blob not null, seconds real not null, primary key (text, choice, first)
);
create table if not exists shipped (rounding text, choice text, record text not null, primary key (rounding, choice));
create table if not exists stages (name text primary key, seconds real not null, n_tokens integer not null, peak_memory_bytes integer not null);
"""


class Store:
    """Settings, arrays, texts, measurements and stage costs of one run.

    Raises:
        OutputError: the folder cannot be written.
        RunError: the file is not a run of this version.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.executescript(_TABLES)
        except (OSError, sqlite3.OperationalError) as error:
            raise OutputError(f"The run folder must be writable; {path.parent} is not ({error}): choose another --out.") from error
        except sqlite3.DatabaseError as error:
            raise _not_a_run(path, error) from error
        self._path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def agree(self, settings: Mapping[str, str]) -> None:
        """Record the settings of a new run, or check those of a resumed run against the recorded ones.

        Raises:
            RunError: a setting differs; the message names each of them.
        """
        if not self._rows("select 1 from arrays limit 1"):
            self._write("insert or replace into settings values (?, ?)", [(name, value) for name, value in settings.items()])
            return
        known = self.settings()
        changed = [f"{name} was {known.get(name, 'absent')} and is now {value}" for name, value in settings.items() if known.get(name) != value]
        if changed:
            raise RunError(
                f"A run must be resumed with the settings it began with; in {self._path.parent} {'; '.join(changed)}: "
                "use the same settings, or another --out folder."
            )

    def settings(self) -> dict[str, str]:
        """Return the settings of the run, empty before it began."""
        return dict(self._rows("select name, value from settings order by rowid"))

    def put_array(self, name: str, values: NDArray[np.generic]) -> None:
        """Store an array under a name."""
        self._write("insert or replace into arrays values (?, ?)", [(name, _packed(values))])

    def has_array(self, name: str) -> bool:
        """Return whether an array of that name is stored."""
        return bool(self._rows("select 1 from arrays where name = ?", name))

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the array stored under a name.

        Raises:
            RunError: there is none.
        """
        rows = self._rows("select data from arrays where name = ?", name)
        if not rows:
            raise self._unfinished(name)
        return _unpacked(rows[0][0])

    def put_text(self, name: str, text: str) -> None:
        """Store a text under a name."""
        self._write("insert or replace into texts values (?, ?)", [(name, text)])

    def texts(self, prefix: str) -> list[str]:
        """Return the texts whose names begin with `prefix`, in the order in which they were first stored."""
        rows = self._rows("select name, text from texts order by rowid")
        return [str(text) for name, text in rows if name.startswith(prefix)]

    def has_text(self, name: str) -> bool:
        """Return whether a text of that name is stored."""
        return bool(self._rows("select 1 from texts where name = ?", name))

    def text(self, name: str) -> str:
        """Return the text stored under a name.

        Raises:
            RunError: there is none.
        """
        rows = self._rows("select text from texts where name = ?", name)
        if not rows:
            raise self._unfinished(name)
        return str(rows[0][0])

    def put(self, measurement: Measurement) -> None:
        """Store a measurement; the first one of a choice stays."""
        choice = json.dumps(measurement.choice)
        self._write("insert or ignore into measurements (choice, record) values (?, ?)", [(choice, json.dumps(asdict(measurement)))])

    def measurements(self) -> list[Measurement]:
        """Return all measurements in the order they were made."""
        return [_measurement(record) for (record,) in self._rows("select record from measurements order by id")]

    def put_shipped(self, rounding: str, measurement: Measurement) -> None:
        """Store a measurement made with the final rounding method `rounding`, after all later build steps; the first one of a choice stays."""
        row = (rounding, json.dumps(measurement.choice), json.dumps(asdict(measurement)))
        self._write("insert or ignore into shipped values (?, ?, ?)", [row])

    def shipped(self, rounding: str) -> list[Measurement]:
        """Return the measurements made with the final rounding method `rounding`, in the order they were made."""
        return [_measurement(record) for (record,) in self._rows("select record from shipped where rounding = ? order by rowid", rounding)]

    def put_evaluation(self, text: str, choice: list[int], *, first: int, values: NDArray[np.float64], seconds: float) -> None:
        """Store `values` `(n_sequences, n_objectives)` of a choice on the sequences of a text from `first` on, and the seconds they took."""
        row = (text, json.dumps(choice), first, _packed(values), seconds)
        self._write("insert or replace into evaluations values (?, ?, ?, ?, ?)", [row])

    def evaluations(self, text: str, choice: list[int]) -> list[tuple[NDArray[np.float64], float]]:
        """Return the stored parts of a choice's values on a text, with the seconds of each, in the order of the text."""
        rows = self._rows("select data, seconds from evaluations where text = ? and choice = ? order by first", text, json.dumps(choice))
        return [(_unpacked(data).astype(np.float64), seconds) for data, seconds in rows]

    def evaluated(self, text: str) -> dict[tuple[int, ...], NDArray[np.float64]]:
        """Return the values `(n_sequences, n_objectives)` of every choice measured on a text, in the order the choices were begun."""
        found: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
        for choice, data in self._rows("select choice, data from evaluations where text = ? order by first, rowid", text):
            found.setdefault(tuple(json.loads(choice)), []).append(_unpacked(data).astype(np.float64))
        return {choice: np.concatenate(parts) for choice, parts in found.items()}

    def put_stage(self, name: str, *, seconds: float, n_tokens: int, peak_memory_bytes: int) -> None:
        """Add seconds and tokens to those stored of a stage, and raise its peak memory where this one is higher."""
        known = self._rows("select seconds, n_tokens, peak_memory_bytes from stages where name = ?", name) or [(0.0, 0, 0)]
        before_seconds, before_tokens, before_peak = known[0]
        values = (name, before_seconds + seconds, before_tokens + n_tokens, max(before_peak, peak_memory_bytes))
        self._write("insert or replace into stages values (?, ?, ?, ?)", [values])

    def stages(self) -> list[tuple[str, float, int, int]]:
        """Return the name, seconds, tokens and peak memory in bytes of each stage, in order."""
        return self._rows("select name, seconds, n_tokens, peak_memory_bytes from stages order by rowid")

    def _unfinished(self, name: str) -> RunError:
        return RunError(f"A run must be finished before it is used; the one in {self._path.parent} has no {name}: run `bitwright search` again.")

    def _rows(self, query: str, *values: str) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _not_a_run(self._path, error) from error

    def _write(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        try:
            with self._db:  # commits at the end, or rolls back
                self._db.execute("begin immediate")
                self._db.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise OutputError(f"The run folder must be writable; {self._path.parent} is not ({error}): make room there and run again.") from error


def _not_a_run(path: Path, error: sqlite3.DatabaseError) -> RunError:
    return RunError(f"A run folder must hold a run of Bitwright; {path} is not one ({error}): choose another folder.")


def _packed(values: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(data: bytes) -> NDArray[np.generic]:
    values: NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
    return values


def _measurement(record: str) -> Measurement:
    fields = json.loads(record)
    return Measurement(**fields | {"choice": tuple(fields["choice"]), "sequence_nats": tuple(fields["sequence_nats"])})
