"""SQLite file of a run: every expensive result, written in one transaction per finished piece of work, so that a killed run resumes where it was.

Each row has a digest of its values (BLAKE2b of 16 bytes), which is checked at every read: SQLite detects a damaged page, but not a flipped bit in a
number.
"""

import hashlib
import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import OutputError, RunError, shown

#: schema of the tables below, stored as `user_version` in the file; `application_id` marks the file as Bitwright's
SCHEMA = 2
_MARK = 0x42495457  # "BITW"
_DIGEST_BYTES = 16
_TABLES = f"""
begin immediate;
create table if not exists settings (name text primary key, value text not null, digest blob not null);
create table if not exists texts (name text primary key, text text not null, digest blob not null);
create table if not exists arrays (name text primary key, data blob not null, digest blob not null);
create table if not exists measurements (
    text text, objective text, choice text, first integer, data blob not null, seconds real not null, digest blob not null,
    primary key (text, objective, choice, first)
);
create table if not exists stages (
    name text primary key, seconds real not null, n_tokens integer not null, peak_memory_bytes integer not null, digest blob not null
);
pragma application_id = {_MARK};
pragma user_version = {SCHEMA};
commit;
"""


_DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)  # the second if the text of an error is itself damaged
_MEASURED = "text, objective, choice, first, data, seconds, digest"
_STAGE = "name, seconds, n_tokens, peak_memory_bytes, digest"


class Store:
    """Settings, arrays, texts, measurements and stage costs of one run.

    Raises:
        OutputError: the folder cannot be written.
        RunError: the file is not a run, or one of another version.
    """

    def __init__(self, path: Path, *, opened: Callable[[Path], sqlite3.Connection] | None = None) -> None:
        try:
            self._path, self._db = path, (opened or _opened)(path)
            self._file = _file_at(path)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"The run folder must be writable; {path.parent} is not ({error}): choose another --out.") from error
        try:
            self._begin(writable=opened is None)
        except BaseException:
            self._db.close()
            raise

    def _begin(self, *, writable: bool) -> None:
        """Create the tables of a new run, or check that they exist.

        Raises:
            OutputError: see `Store`.
            RunError: see `Store`.
        """
        try:
            self._require_ours()
            if writable:
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = normal")
        except _DAMAGED as error:
            raise _refusal(self._path, error, "choose another --out") from error

    def _require_ours(self) -> None:
        """Create the tables in a new file; refuse a file of another program or version before anything in it is changed."""
        (n_tables,), (mark,), (schema,) = (
            self._db.execute(query).fetchone() for query in ("select count(*) from sqlite_master", "pragma application_id", "pragma user_version")
        )
        if not n_tables and not mark:
            self._db.executescript(_TABLES)
        elif mark != _MARK and {"settings", "arrays", "measurements", "stages"} <= self._tables():
            raise _other_version(self._path, "an older one")
        elif mark != _MARK:
            raise _not_a_run(self._path, "another program made it")
        elif schema != SCHEMA:
            raise _other_version(self._path, f"schema {schema}")

    def _tables(self) -> set[str]:
        return {str(name) for (name,) in self._db.execute("select name from sqlite_master where type = 'table'")}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Record the settings of a new run, or check those of a resumed run against the recorded ones.

        Raises:
            RunError: a setting differs; the message names each of them.
        """
        if not self._has("select 1 from arrays limit 1"):
            self._write("insert or replace into settings values (?, ?, ?)", list(settings.items()))
            return
        self.require_settings(settings, among={**settings, **self.settings()})

    def require_settings(self, settings: Mapping[str, str], *, among: Iterable[str]) -> None:
        """Require that settings with the names `among` are those that the run began with, if it has begun.

        Raises:
            RunError: a setting differs; the message names each of them.
        """
        if not self._has("select 1 from arrays limit 1"):
            return
        known = self.settings()
        names = [name for name in among if known.get(name) != settings.get(name)]
        changed = [f"{name} was {known.get(name, 'absent')} and is now {settings.get(name, 'absent')}" for name in names]
        if changed:
            raise RunError(
                f"A run must be resumed with the settings it began with; in {self._path.parent} {'; '.join(changed)}: "
                "use the same settings, or another --out folder."
            )

    def settings(self) -> dict[str, str]:
        """Settings of the run, empty before it began."""
        return dict(self._rows("select name, value, digest from settings order by rowid"))

    def put_array(self, name: str, values: NDArray[np.generic]) -> None:
        """Store an array under a name."""
        self._write("insert or replace into arrays values (?, ?, ?)", [(name, _packed(values))])

    def has_array(self, name: str) -> bool:
        """Return whether there is an array of that name."""
        return self._has("select 1 from arrays where name = ?", name)

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the array stored under a name.

        Raises:
            RunError: there is none.
        """
        rows = self._rows("select name, data, digest from arrays where name = ?", name)
        if not rows:
            raise self._unfinished(name)
        return _unpacked(rows[0][1])

    def put_text(self, name: str, text: str) -> None:
        """Store a text under a name."""
        self._write("insert or replace into texts values (?, ?, ?)", [(name, text)])

    def texts(self, prefix: str) -> list[str]:
        """List the texts whose names begin with `prefix`, in the order in which they were first stored."""
        rows = self._rows("select name, text, digest from texts order by rowid")
        return [str(text) for name, text in rows if name.startswith(prefix)]

    def has_text(self, name: str) -> bool:
        """Return whether there is a text of that name."""
        return self._has("select 1 from texts where name = ?", name)

    def text(self, name: str) -> str:
        """Return the text stored under a name.

        Raises:
            RunError: there is none.
        """
        rows = self._rows("select name, text, digest from texts where name = ?", name)
        if not rows:
            raise self._unfinished(name)
        return str(rows[0][1])

    def put_measured(self, text: str, choice: list[int], values: Mapping[str, NDArray[np.float64]], *, first: int, seconds: float) -> None:
        """Store in one transaction the values of a choice on the sequences of a text from `first` on, and the seconds they took, divided evenly.

        `values` has an array for each objective by its name: `(n_sequences, 1)` of a token objective, and `(1, 2)` of a model objective, whose value
        and standard error are kept.
        """
        share, key = float(seconds) / len(values), json.dumps(choice)
        rows = [(text, objective, key, first, _packed(data), share) for objective, data in values.items()]
        self._write("insert or replace into measurements values (?, ?, ?, ?, ?, ?, ?)", rows)

    def measured(self, text: str, objective: str, choice: list[int]) -> tuple[NDArray[np.float64], float]:
        """Return the values of a choice on the first sequences of a text, see `put_measured`, and the seconds they took; none are `(0, 1)`."""
        query = f"select {_MEASURED} from measurements where text = ? and objective = ? and choice = ? order by first"
        return _joined(self._rows(query, text, objective, json.dumps(choice)))

    def all_measured(self, text: str, objective: str) -> dict[tuple[int, ...], tuple[NDArray[np.float64], float]]:
        """Return the same of every choice, in the order in which the choices were begun."""
        found: dict[str, list[Any]] = {}
        for row in self._rows(f"select {_MEASURED} from measurements where text = ? and objective = ? order by first, rowid", text, objective):
            found.setdefault(row[2], []).append(row)
        return {tuple(json.loads(choice)): _joined(rows) for choice, rows in found.items()}

    def put_stage(self, name: str, *, seconds: float, n_tokens: int, peak_memory_bytes: int) -> None:
        """Store the cost of a stage, added to that of its earlier parts."""
        known = self._rows(f"select {_STAGE} from stages where name = ?", name) or [(name, 0.0, 0, 0)]
        _, before_seconds, before_tokens, before_peak = known[0]
        values = (name, float(before_seconds + seconds), int(before_tokens + n_tokens), int(max(before_peak, peak_memory_bytes)))
        self._write("insert or replace into stages values (?, ?, ?, ?, ?)", [values])

    def stages(self) -> list[tuple[str, float, int, int]]:
        """Name, seconds, tokens and peak memory in bytes of each stage, in order."""
        return self._rows(f"select {_STAGE} from stages order by rowid")

    def _unfinished(self, name: str) -> RunError:
        return RunError(f"A run must be finished before it is used; the one in {self._path.parent} has no {name}: run `bitwright search` again.")

    def _has(self, query: str, *values: str) -> bool:
        try:
            return self._db.execute(query, values).fetchone() is not None
        except _DAMAGED as error:
            raise _not_a_run(self._path, str(error)) from error

    def _rows(self, query: str, *values: str) -> list[Any]:
        """Return rows without their digest, which is the last column.

        Raises:
            RunError: the file is damaged, or a digest does not match.
        """
        try:
            rows = self._db.execute(query, values).fetchall()
        except _DAMAGED as error:
            raise _not_a_run(self._path, str(error)) from error
        if any(_digest(row[:-1]) != row[-1] for row in rows):
            raise _not_a_run(self._path, "it was changed since it was written")
        return [row[:-1] for row in rows]

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Write rows with their digests, all or none.

        Raises:
            OutputError: there is no room, or no permission.
            RunError: the file is damaged.
        """
        if self._file != _file_at(self._path):
            raise OutputError(f"The run folder must stay where it is; {self._path} was removed or replaced meanwhile: put it back and run again.")
        try:
            with self._db:  # commits at the end, or rolls back
                self._db.execute("begin immediate")
                self._db.executemany(statement, [(*row, _digest(row)) for row in rows])
        except sqlite3.ProgrammingError:  # a Python value that SQLite cannot store
            raise
        except _DAMAGED as error:
            raise _refusal(self._path, error, "make room there and run again") from error


def _refusal(path: Path, error: Exception, way_out: str) -> OutputError | RunError:
    """Return the error for a file that cannot be written: full disk, no permission, or a damaged file."""
    is_place = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname != "SQLITE_ERROR"
    return OutputError(f"The run folder must be writable; {path.parent} is not ({error}): {way_out}.") if is_place else _not_a_run(path, str(error))


def _not_a_run(path: Path, reason: str) -> RunError:
    return RunError(f"A run folder must hold a run of Bitwright; {path} is not one, or is damaged ({shown(reason, 200)}): choose another folder.")


def _other_version(path: Path, version: str) -> RunError:
    return RunError(f"A run must be of this version of Bitwright, of schema {SCHEMA}; {path} is of {version}: search again with another --out.")


def _digest(row: tuple[object, ...]) -> bytes:
    """Return the digest of the values of a row, each with its type and length."""
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for value in row:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        found.update(f"{type(value).__name__} {len(data)} ".encode())
        found.update(data)
    return found.digest()


def readable_store(path: Path) -> Store:
    """Open the store of a run for reading; if its folder is not writable, a copy in memory is opened, which cannot be written.

    Raises:
        OutputError: the run can neither be written nor read.
        RunError: see `Store`.
    """
    try:
        return Store(path)
    except OutputError:
        if not path.exists():
            raise
        return Store(path, opened=_copied)


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def _copied(path: Path) -> sqlite3.Connection:
    """Copy the file to memory, including the write-ahead log of a killed process, which SQLite cannot read without writing beside it."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        for file in (path, path.with_name(f"{path.name}-wal")):
            if file.exists():
                shutil.copyfile(file, Path(folder) / file.name)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copy:
            copy.backup(memory)
    memory.execute("pragma query_only = on")
    return memory


def _file_at(path: Path) -> tuple[int, int]:
    """Return the device and inode of a path, (0, 0) if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _packed(values: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(data: bytes) -> NDArray[np.generic]:
    values: NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
    return values


def _joined(rows: list[Any]) -> tuple[NDArray[np.float64], float]:
    """Join the values of the parts of a text, and sum their seconds."""
    parts = [_unpacked(data).astype(np.float64) for *_, data, _ in rows]
    return np.concatenate(parts) if parts else np.zeros((0, 1)), sum(seconds for *_, seconds in rows)
