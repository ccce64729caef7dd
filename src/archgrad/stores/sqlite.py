"""A run in one SQLite file: its trials, its steps, its last checkpoint, and what it was asked to do."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from archgrad.errors import UsageError
from archgrad.records import Job, Step, Trial
from archgrad.stores.state import pack, unpack

if sys.platform != "win32":
    import fcntl

APPLICATION = int.from_bytes(b"arcg", "big")
VERSION = 1
SCHEMA = """
CREATE TABLE trials (
    "index" INTEGER PRIMARY KEY,
    role TEXT NOT NULL,
    architecture TEXT NOT NULL,
    seed INTEGER NOT NULL,
    fidelity REAL NOT NULL,
    state TEXT NOT NULL,
    metrics TEXT NOT NULL,
    seconds REAL NOT NULL,
    error TEXT,
    save TEXT
);
CREATE TABLE steps (t INTEGER PRIMARY KEY, marginals TEXT NOT NULL, diagnostics TEXT NOT NULL);
CREATE TABLE checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), t INTEGER NOT NULL, state BLOB NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SQLite:
    """A ``Store`` in the file ``path``; one writer, any number of readers, also while it is written.

    create: begin a new run (``path`` should not exist); otherwise open one that exists.
    durable: survive a power cut. Without it a trial survives the killing of this process from the moment ``add``
        returns, but a power cut may take the last few (never a part of one).
    read_only: never writes a byte beside ``path`` either, needs no permission to, and sees what was committed when
        a method is called, also in a run that was killed.

    A writer holds a lock (``path`` + ``.lock``) that goes with its process, however that ends; on Windows there is
    none, and nothing stops a second writer. Keep the file on a local disk: network file systems break SQLite's locks.

    Raises UsageError where there is nothing to open, something else is there, it is damaged, it was written by a newer
    archgrad, or another process writes to it; later on where the disk is full or read-only.
    """

    def __init__(self, path: str | Path, *, create: bool, durable: bool = False, read_only: bool = False) -> None:
        self.path = Path(path)
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        if create and read_only:
            raise UsageError("a store opened read_only should exist already, got create=True too; drop one of them")
        if create and self.path.exists():
            raise UsageError(f"a new run should begin in a new file, but {self.path} exists; resume it or name another")
        if not create and not self.path.is_file():
            raise UsageError(f"a run should be in {self.path}, but no such file exists; check the path")
        try:
            if not read_only:
                self._lock = _lock(self.path)
                if create:
                    _create(self.path)
                with _explained(self.path):
                    self._db = _connect(self.path, "mode=rw")
                    _check(self._db, self.path)
                    self._db.execute("BEGIN IMMEDIATE")  # SQLite opens what it may not write, and says so only here
                    self._db.execute("ROLLBACK")
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            else:
                with self._reading() as db:
                    _check(db, self.path)
        except BaseException:
            self.close()
            raise

    def add(self, trial: Trial) -> None:
        """Keep a trial; one whose index is already kept is ignored. It is on disk when this returns."""
        job = trial.job
        with self._writing() as db:
            db.execute(
                'INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT ("index") DO NOTHING',
                (
                    job.index,
                    job.role,
                    json.dumps(job.architecture),
                    job.seed,
                    job.fidelity,
                    trial.state,
                    _dumps(dict(trial.metrics)),
                    trial.seconds,
                    trial.error,
                    job.save,
                ),
            )

    def trials(self) -> list[Trial]:
        """All trials by index."""
        with self._reading() as db:
            rows = db.execute(
                'SELECT "index", role, architecture, seed, fidelity, save, metrics, seconds, error '
                'FROM trials ORDER BY "index"'
            ).fetchall()
            return [
                Trial(Job(index, role, tuple(json.loads(names)), seed, fidelity, save), _loads(metrics), seconds, error)
                for index, role, names, seed, fidelity, save, metrics, seconds, error in rows
            ]

    def add_step(self, step: Step, state: Mapping[str, Any]) -> None:
        """Log an update of alpha and replace the checkpoint by ``state``, in one transaction."""
        blob = pack(state)
        with self._writing() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute(
                    "INSERT OR REPLACE INTO steps VALUES (?, ?, ?)",
                    (step.t, _dumps([list(row) for row in step.marginals]), _dumps(dict(step.diagnostics))),
                )
                db.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (step.t, blob))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has rolled back by itself where the disk is full
                    db.execute("ROLLBACK")
                raise

    def steps(self) -> list[Step]:
        """All steps by t."""
        with self._reading() as db:
            rows = db.execute("SELECT t, marginals, diagnostics FROM steps ORDER BY t").fetchall()
            return [Step(t, _loads(marginals), _loads(diagnostics)) for t, marginals, diagnostics in rows]

    def checkpoint(self) -> dict[str, Any] | None:
        """The state of the last ``add_step``; None before the first. Raises UsageError where it is damaged."""
        with self._reading() as db:
            row = db.execute("SELECT state FROM checkpoint").fetchone()
        if row is None:
            return None
        state: dict[str, Any] = unpack(row[0])
        return state

    def set_meta(self, name: str, value: Any) -> None:
        """Keep one JSON value under a name, in place of the one before. Raises UsageError for what JSON cannot say."""
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"meta {name!r} should be a JSON value, got {value!r} ({error}); write it as text"
            ) from None
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, text))

    def meta(self, name: str) -> Any:
        """The JSON value, None where there is none."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    def close(self) -> None:
        """Fold the log into the file and let the next writer in; can be called twice."""
        db, self._db = self._db, None
        lock, self._lock = self._lock, None
        try:
            if db is not None:
                db.close()
        finally:
            if lock is not None:
                os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise UsageError(f"{self.path} should be open for writing, but it is closed or read_only; open it again")
        with _explained(self.path):
            yield self._db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The writer's own connection, or a fresh one: a reader that keeps none goes stale at no resume."""
        with _explained(self.path):
            if self._db is not None:
                yield self._db
                return
            with _reader(self.path) as db:
                yield db


def _lock(path: Path) -> int:
    """The run's lock, held while the returned descriptor is open. The file stays: removing it would race."""
    try:
        lock = os.open(
            f"{path}.lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644
        )
    except OSError as error:
        raise UsageError(
            f"{path} should be in a folder that can be written to, got {error.strerror}; choose another folder"
        ) from None
    if sys.platform != "win32":
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise UsageError(
                f"a run should have one writer, but process {holder} is writing to {path}; wait for it or stop it"
            ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _create(path: Path) -> None:
    """An empty run, which appears under its name complete or not at all."""
    if path.exists():
        raise UsageError(f"a new run should begin in a new file, but {path} exists; resume it or name another")
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    with _explained(path):
        db = _connect(new, "mode=rwc")
        try:
            db.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; {SCHEMA} COMMIT;"
            )
        finally:
            db.close()
    new.replace(path)


def _connect(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None)


@contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves no file behind, by the state the run was left in."""
    log = Path(f"{path}-wal")
    folder: str | None = None
    db: sqlite3.Connection | None = None
    try:
        if Path(f"{path}-shm").exists():
            db = _connect(path, "mode=ro")  # being written, or killed: its index is there to share
        elif log.exists() and log.stat().st_size:
            folder = tempfile.mkdtemp(prefix="archgrad-")  # a log without its index, which SQLite would have to write
            for file in (path, log):
                shutil.copy(file, folder)
            db = _connect(Path(folder) / path.name, "mode=rw")
        else:
            db = _connect(path, "mode=ro&immutable=1")  # closed: SQLite would leave an empty log and index
        yield db
    finally:
        if db is not None:
            db.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raise UsageError unless this is one of our files, whole, in a version we know."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise UsageError(
            f"{path} should be an archgrad run, but it is an empty or another program's SQLite file; name another"
        )
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise UsageError(f"{path} should have schema version {VERSION} or less, got {version}; update archgrad")
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    if not tables >= {"trials", "steps", "checkpoint", "meta"}:
        raise UsageError(f"{path} should be whole, but it is damaged (tables are missing); use a copy of it")
    faults = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"]:
        raise UsageError(f"{path} should be whole, but it is damaged ({' '.join(faults[0].split())}); use a copy of it")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors about the file and its disk as sentences; those about our own SQL stay bugs."""
    try:
        yield
    except ValueError as error:  # no JSON, no UTF-8, no number: what was written here is always one
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} should be whole, but it is damaged ({error}); use a copy of it") from error
    except sqlite3.DatabaseError as error:
        if "Could not decode to UTF-8" in str(error):
            raise UsageError(f"{path} should be whole, but it is damaged (no UTF-8); use a copy of it") from error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes carry the reason in the higher bits
        sentences = {
            sqlite3.SQLITE_FULL: f"{path} should have room to grow, but the disk is full; free some and resume",
            sqlite3.SQLITE_READONLY: f"{path} should be writable, but it is read-only; change that or copy the run",
            sqlite3.SQLITE_PERM: f"{path} should be accessible, but permission is denied; change its mode",
            sqlite3.SQLITE_CANTOPEN: f"{path} should be in a folder that can be written to, but it cannot be opened; "
            "check the folder and its permissions",
            sqlite3.SQLITE_BUSY: f"{path} should be free, but another process has locked it; try again when it is done",
            sqlite3.SQLITE_IOERR: f"{path} should be on a working disk, but reading or writing failed ({error}); "
            "check the disk and its free space",
            sqlite3.SQLITE_CORRUPT: f"{path} should be whole, but it is damaged ({error}); use a copy of it",
            sqlite3.SQLITE_NOTADB: f"{path} should be an archgrad run, but it is no SQLite file; name another",
        }
        if code not in sentences:
            raise
        raise UsageError(sentences[code]) from error


def _dumps(value: Any) -> str:
    """Numbers in dicts and lists as strict JSON: nan and the infinities, which it lacks, become strings."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_spelled(value), allow_nan=False)


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return repr(float(value)) if not math.isfinite(value) else value


def _loads(text: str) -> Any:
    return _numbers(json.loads(text))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) else value
