"""history.sqlite: every cell of every run, for whoever compares nights.

A rollback journal rather than a write-ahead log: between two cells the history is one file, which
CI can keep and restore as it is; a write-ahead log would leave the latest cells in a second file
that gets lost. Writers wait for one another, which costs nothing at a cell or so per second.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult, PinnedRecord, Status
from onnx_harness.results.codec import decode, encode
from onnx_harness.results.levels import Level
from onnx_harness.results.run import HostInfo, RunInfo

FILE_NAME = "history.sqlite"
APPLICATION_ID = 0x6F6E7868
"""``onxh``: what tells this database from anybody else's."""

BUSY_SECONDS = 20.0
"""How long to wait for another run's write, which takes milliseconds."""

MIGRATIONS = (
    """
    CREATE TABLE runs (
        number   INTEGER PRIMARY KEY,  -- the order of runs, whatever the clock did
        run_id   TEXT NOT NULL UNIQUE,
        started  TEXT NOT NULL,
        command  TEXT NOT NULL,
        seed     INTEGER NOT NULL,
        cpu      TEXT NOT NULL,
        cores    INTEGER NOT NULL,
        versions TEXT NOT NULL,  -- JSON: distribution name to version
        json     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE cells (
        run_id            TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
        cell_id           TEXT NOT NULL,
        model             TEXT NOT NULL,
        variant           TEXT NOT NULL,
        provider          TEXT NOT NULL,
        model_sha256      TEXT NOT NULL,
        status            TEXT NOT NULL,
        stage             TEXT NOT NULL,
        minimum_tolerance REAL,  -- the worst output's; NULL when no tolerance would do or nothing was compared
        nonfinite         INTEGER,
        share             REAL,
        nodes_after       INTEGER,
        bytes_after       INTEGER,
        threads           INTEGER,
        median_ms         REAL,
        baseline_median_ms REAL,
        speedup           REAL,
        speedup_low       REAL,
        speedup_high      REAL,
        json              TEXT NOT NULL,
        PRIMARY KEY (run_id, cell_id)
    ) STRICT;
    CREATE INDEX cells_by_cell ON cells (cell_id, run_id);
    """,
    """
    ALTER TABLE cells ADD COLUMN card_sha256 TEXT;
    ALTER TABLE cells ADD COLUMN inputs_sha256 TEXT;
    ALTER TABLE cells ADD COLUMN pinned_ratio REAL;
    CREATE TABLE accepted (
        number    INTEGER PRIMARY KEY,
        cell_id   TEXT NOT NULL,  -- of the cell whose level was moved, or the name of a lock file
        processor TEXT NOT NULL,
        run_id    TEXT NOT NULL,
        moment    TEXT NOT NULL,
        who       TEXT NOT NULL,
        why       TEXT NOT NULL,
        json      TEXT NOT NULL
    ) STRICT;
    """,
)
"""Script k brings a history from ``user_version`` k to k + 1. They are added to, never changed."""

_INSERT_CELL = """
    INSERT OR REPLACE INTO cells (
        run_id, cell_id, model, variant, provider, model_sha256, status, stage, minimum_tolerance, nonfinite, share,
        nodes_after, bytes_after, threads, median_ms, baseline_median_ms, speedup, speedup_low, speedup_high, json,
        card_sha256, inputs_sha256, pinned_ratio
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What judging a cell took.

    Attributes:
        seconds: of all its stages.
        peak_bytes: of memory; None where that isn't known.
    """

    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class PastCell:
    """A cell as it ended in a run."""

    run: RunInfo
    cell: CellResult


@dataclass(frozen=True, slots=True)
class NightFigures:
    """The figures of a cell in one run, without the rest of its verdict.

    Attributes:
        run: in which it was judged.
        median_ms: steady latency in milliseconds; None where it wasn't timed.
        speedup: of the baseline, with its 95% interval in `speedup_ci95`.
        pinned: the comparison with the pinned reference; None where there was none.
        machine: where it was judged, if that isn't the run's own host.
    """

    run: RunInfo
    cell_id: str
    status: Status
    median_ms: float | None
    speedup: float | None
    speedup_ci95: tuple[float, float] | None
    pinned: PinnedRecord | None
    machine: HostInfo | None = None

    def processor(self, provider: str) -> str:
        """What computed it, as in `CellResult.processor`."""
        return (self.machine or self.run.host).processor_of(provider)


class History:
    """The history in one file. Use it as a context manager, or close it.

    Args:
        path: made if need be, with its folder.

    Raises:
        ResultsError: it can't be opened, is damaged, belongs to something else, or to a newer
            version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run_id = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(f"the history {path} can't be made: {error.strerror}") from error
        with self._explained():
            # Autocommit: transactions begin where the code says so.
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained():
                self._database.execute("PRAGMA foreign_keys = ON")
                self._check_whole()
                self._migrate()
        except BaseException:
            self._database.close()
            raise

    def begin(self, run: RunInfo) -> None:
        """Enter a run; the cells that follow are its.

        Raises:
            ResultsError: it can't be written.
        """
        with self._explained(), self._transaction():
            self._enter(run)
        self._run_id = run.id

    def put(self, cell: CellResult) -> None:
        """Enter a cell of the run begun, or replace what was entered for it earlier in the run.

        Raises:
            ResultsError: it can't be written; what was there before is untouched.
        """
        self.put_all([cell])

    def put_all(self, cells: Iterable[CellResult]) -> None:
        """Enter cells as :meth:`put` does, all of them or none: one commit, which takes the disk's
        time, for many.

        Raises:
            ResultsError: as for :meth:`put`.
        """
        rows = [_cell_row(self._run_id, cell) for cell in cells]
        with self._explained(), self._transaction():
            self._database.executemany(_INSERT_CELL, rows)

    def adopt(self, run: RunInfo, cells: Sequence[CellResult]) -> int:
        """Enter those cells of another run that the history lacks, and the run itself where it
        lacks that.

        Returns:
            How many cells were entered.

        Raises:
            ResultsError: it can't be written; then nothing was entered.
        """
        with self._explained():
            query = "SELECT cell_id FROM cells WHERE run_id = ?"
            present = {cell_id for (cell_id,) in self._database.execute(query, (run.id,))}
        missing = [cell for cell in cells if cell.id not in present]
        if not missing:
            return 0
        with self._explained(), self._transaction():
            self._enter(run, "OR IGNORE")
            rows = (_cell_row(run.id, cell) for cell in missing)
            self._database.executemany(_INSERT_CELL.replace("REPLACE", "IGNORE"), rows)
        return len(missing)

    def runs(self) -> tuple[RunInfo, ...]:
        """Every run, oldest first.

        Raises:
            ResultsError: it can't be read.
        """
        with self._explained():
            rows = self._database.execute("SELECT json FROM runs ORDER BY number").fetchall()
        return tuple(decode(RunInfo, json.loads(text), "run") for (text,) in rows)

    def past(self, cell_id: str, *, last: int = 100) -> tuple[PastCell, ...]:
        """How a cell ended in its ``last`` latest runs, oldest first.

        Raises:
            ResultsError: it can't be read.
        """
        query = """
            SELECT runs.json, cells.json FROM cells JOIN runs USING (run_id)
            WHERE cell_id = ? ORDER BY number DESC LIMIT ?
        """
        with self._explained():
            rows = self._database.execute(query, (cell_id, last)).fetchall()
        return tuple(
            PastCell(_run_info(run), decode(CellResult, json.loads(cell), "cell"))
            for run, cell in reversed(rows)
        )

    def cells(self, run_id: str) -> tuple[CellResult, ...]:
        """The cells of a run, by id.

        Raises:
            ResultsError: it can't be read.
        """
        with self._explained():
            query = "SELECT json FROM cells WHERE run_id = ? ORDER BY cell_id"
            rows = self._database.execute(query, (run_id,)).fetchall()
        return tuple(decode(CellResult, json.loads(text), "cell") for (text,) in rows)

    def nights(self, run_id: str, *, last: int) -> tuple[NightFigures, ...]:
        """Return the figures of a run and of the runs entered before it, `last` runs in all.

        Args:
            run_id: the run that comes last.
            last: runs to go back to.

        Returns:
            In the order of the runs; none where the history doesn't have the run.

        Raises:
            ResultsError: it can't be read.
        """
        query = """
            SELECT runs.json, cell_id, status, median_ms, speedup, speedup_low, speedup_high,
                CASE WHEN pinned_ratio IS NULL THEN NULL ELSE json_extract(cells.json, '$.pinned') END,
                CASE WHEN instr(cells.json, '"machine":{') THEN json_extract(cells.json, '$.machine') END
            FROM (SELECT * FROM runs
                  WHERE number <= (SELECT number FROM runs WHERE run_id = ?) ORDER BY number DESC LIMIT ?) AS runs
            JOIN cells USING (run_id) ORDER BY number, cell_id
        """
        with self._explained():
            rows = self._database.execute(query, (run_id, last)).fetchall()
        return tuple(_night_figures(*row) for row in rows)

    def measured(self) -> dict[str, Measured]:
        """What each cell took in the latest run that judged it, by cell id.

        Raises:
            ResultsError: it can't be read.
        """
        # SQLite takes the other columns from the row that has the maximum
        # (https://sqlite.org/lang_select.html#bareagg).
        query = """
            SELECT cell_id, max(number), json_extract(cells.json, '$.peak_bytes'),
                (SELECT total(value) FROM json_each(cells.json, '$.seconds'))
            FROM cells JOIN runs USING (run_id) GROUP BY cell_id
        """
        with self._explained():
            rows = self._database.execute(query).fetchall()
        return {cell_id: Measured(seconds, peak) for cell_id, _, peak, seconds in rows}

    def note_accepted(self, levels: Sequence[Level]) -> None:
        """Keep who moved which levels, when and why: all of them or none.

        Raises:
            ResultsError: it can't be written.
        """
        rows = [
            (
                each.cell.id,
                each.processor,
                each.run_id,
                each.accepted,
                each.who,
                each.why,
                _json(each),
            )
            for each in levels
        ]
        with self._explained(), self._transaction():
            self._database.executemany(
                "INSERT INTO accepted VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def accepted(self) -> tuple[Level, ...]:
        """Every move of a level, oldest first.

        Raises:
            ResultsError: it can't be read.
        """
        with self._explained():
            rows = self._database.execute("SELECT json FROM accepted ORDER BY number").fetchall()
        return tuple(decode(Level, json.loads(text), "level") for (text,) in rows)

    def close(self) -> None:
        """Close the file. Everything that was put is in it already."""
        self._database.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _enter(self, run: RunInfo, conflict: str = "") -> None:
        host = run.host
        row = (
            run.id,
            run.started,
            run.command,
            run.seed,
            host.cpu,
            host.cores,
            _json(run.versions),
            _json(run),
        )
        self._database.execute(
            f"INSERT {conflict} INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )

    def _check_whole(self) -> None:
        """A damaged file is found before anything is added to it, which would make it worse."""
        [verdict] = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _migrate(self) -> None:
        with (
            self._transaction()
        ):  # Two first runs at once: the second waits here, and finds the work done.
            [version] = self._database.execute("PRAGMA user_version").fetchone()
            [application] = self._database.execute("PRAGMA application_id").fetchone()
            [tables] = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != APPLICATION_ID:
                raise ResultsError(
                    f"{self._path} is a database of something else: move it away, or name another "
                    f"folder "
                    "with --report-dir"
                )
            if version > len(MIGRATIONS):
                raise ResultsError(
                    f"{self._path} was written by a newer onnx-harness (history version "
                    f"{version}, this one knows "
                    f"{len(MIGRATIONS)}): upgrade onnx-harness, or name another folder with "
                    f"--report-dir"
                )
            if version == len(MIGRATIONS):
                return
            for script in MIGRATIONS[version:]:
                for statement in script.split(";\n"):  # executescript() would end the transaction.
                    self._database.execute(statement)
            self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite says into what happened and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_CORRUPT) & 0xFF
            what, mend = _EXPLANATIONS.get(
                code, ("can't be used", "move it away, and the next run starts a new one")
            )
            raise ResultsError(
                f"the history {self._path} {what} ({error}). Mend: {mend}. The results of this "
                f"run are in results.json."
            ) from error


_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: (
        f"is locked by another process for more than {BUSY_SECONDS:.0f} s",
        "wait for the other run or close the other program",
    ),
    sqlite3.SQLITE_LOCKED: ("is locked", "wait for the other run or close the other program"),
    sqlite3.SQLITE_READONLY: (
        "is read-only",
        "mend its permissions, or name another folder with --report-dir",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "can't be opened",
        "mend the permissions of its folder, or name another with --report-dir",
    ),
    sqlite3.SQLITE_PERM: (
        "can't be opened",
        "mend its permissions, or name another folder with --report-dir",
    ),
    sqlite3.SQLITE_FULL: (
        "doesn't fit on the disk",
        "free some space, or name another folder with --report-dir",
    ),
    sqlite3.SQLITE_IOERR: (
        "can't be read or written",
        "see whether the disk is full or a file-size limit is set",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        "restore a copy, or move it away: the next run starts a new one",
    ),
    sqlite3.SQLITE_NOTADB: (
        "isn't a database",
        "restore a copy, or move it away: the next run starts a new one",
    ),
}


def _night_figures(
    run: str,
    cell_id: str,
    status: str,
    median_ms: float | None,
    speedup: float | None,
    low: float | None,
    high: float | None,
    pinned: str | None,
    machine: str | None,
) -> NightFigures:
    interval = None if low is None or high is None else (low, high)
    record = None if pinned is None else decode(PinnedRecord, json.loads(pinned), "pinned")
    host = None if machine is None else decode(HostInfo, json.loads(machine), "machine")
    return NightFigures(
        _run_info(run), cell_id, Status(status), median_ms, speedup, interval, record, host
    )


@lru_cache(maxsize=1024)
def _run_info(text: str) -> RunInfo:
    """A run from its JSON; each is asked for once for every cell that it had."""
    return decode(RunInfo, json.loads(text), "run")


def _json(value: object) -> str:
    return json.dumps(encode(value), ensure_ascii=True, separators=(",", ":"))


def _figure(value: float | None) -> float | None:
    """What SQLite would make of NaN, said openly."""
    return value if value is not None and math.isfinite(value) else None


def _cell_row(run_id: str, cell: CellResult) -> tuple[object, ...]:
    outputs = list(cell.accuracy.outputs.values()) if cell.accuracy else []
    tolerances = [output.minimum_tolerance for output in outputs]
    known = [tolerance for tolerance in tolerances if tolerance is not None]
    graph, placement, latency = cell.graph, cell.placement, cell.latency
    low, high = (latency.speedup_ci95 if latency else None) or (None, None)
    return (
        run_id,
        cell.id,
        cell.model,
        cell.variant,
        cell.provider,
        cell.model_sha256,
        cell.status.value,
        cell.stage.value,
        max(known) if known and len(known) == len(tolerances) else None,
        sum(output.nonfinite for output in outputs) if outputs else None,
        placement and placement.share,
        graph and graph.nodes_after,
        graph and graph.bytes_after,
        latency and latency.threads,
        latency and latency.median_ms,
        latency and latency.baseline_median_ms,
        latency and latency.speedup,
        low,
        high,
        _json(cell),
        cell.card_sha256,
        cell.inputs_sha256,
        cell.pinned and _figure(cell.pinned.night_ratio),
    )
