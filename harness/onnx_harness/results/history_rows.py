"""The tables of the history: their migrations, and records as their rows."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from onnx_harness.results.cells import CellResult, PinnedRecord, Status
from onnx_harness.results.codec import decode, encode
from onnx_harness.results.run import HostInfo, RunInfo

BUSY_SECONDS = 20.0
"""The wait for another run's write, which takes milliseconds."""
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
        minimum_tolerance REAL,  -- the worst output's; NULL: none would do, or none was compared
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
    """
    -- JSON; NULL: the run's own host
    ALTER TABLE cells ADD COLUMN machine TEXT;
    UPDATE cells SET machine = json_extract(json, '$.machine')
        WHERE instr(json, '"machine":{') OR instr(json, '"machine": {');
    DROP INDEX cells_by_cell;
    -- All that the nights of a cell are drawn by: its JSON needn't be read.
    CREATE INDEX cells_by_cell ON cells (
        cell_id, run_id, status, median_ms, speedup, speedup_low, speedup_high, pinned_ratio,
        machine
    );
    """,
)
"""Script k brings a history from ``user_version`` k to k + 1. They are added to, never changed."""
INSERT_CELL = """
    INSERT OR REPLACE INTO cells (
        run_id, cell_id, model, variant, provider, model_sha256, status, stage, minimum_tolerance,
        nonfinite, share, nodes_after, bytes_after, threads, median_ms, baseline_median_ms,
        speedup, speedup_low, speedup_high, json,
        card_sha256, inputs_sha256, pinned_ratio, machine
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The cost of judging a cell.

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
        """Name what computed it, as `CellResult.processor` does."""
        return (self.machine or self.run.host).processor_of(provider)


EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: (
        f"is locked by another process for more than {BUSY_SECONDS:.0f} s",
        "wait for the other run or close the other program",
    ),
    sqlite3.SQLITE_LOCKED: (
        "is locked",
        "wait for the other run or close the other program",
    ),
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


def explanation(error: Exception) -> tuple[str, str]:
    """Return what an error says of a history, and what to do about it."""
    otherwise = "can't be used", "move it away, and the next run starts a new one"
    return EXPLANATIONS.get(_code(error), otherwise)


def _code(error: Exception) -> int:
    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_CORRUPT) & 0xFF


def is_read_only(error: sqlite3.Error) -> bool:
    """Return whether a file can't be changed that should have been."""
    return _code(error) == sqlite3.SQLITE_READONLY


def temporary_copy(database: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy for reading, and close what is copied.

    An older file that can't be changed is brought up to date there.
    """
    # Without a name it's a temporary file of SQLite's, which goes when it's closed.
    copy = sqlite3.connect("", isolation_level=None)
    database.backup(copy)
    database.close()
    return copy


def night_figures(
    run: RunInfo,
    cell_id: str,
    status: str,
    median_ms: float | None,
    speedup: float | None,
    low: float | None,
    high: float | None,
    pinned: str | None,
    machine: str | None,
) -> NightFigures:
    """Make the record of a night from its row."""
    interval = None if low is None or high is None else (low, high)
    record = None if pinned is None else decode(PinnedRecord, json.loads(pinned), "pinned")
    host = None if machine is None else decode(HostInfo, json.loads(machine), "machine")
    return NightFigures(
        run, cell_id, Status(status), median_ms, speedup, interval, record, host
    )


@lru_cache(maxsize=1024)
def run_info(text: str) -> RunInfo:
    """A run from its JSON; each is asked for once for every cell that it had."""
    return decode(RunInfo, json.loads(text), "run")


def as_json(value: object) -> str:
    """Write a record as JSON for a row."""
    return json.dumps(encode(value), ensure_ascii=True, separators=(",", ":"))


def _figure(value: float | None) -> float | None:
    """Return what SQLite would make of NaN, said openly."""
    return value if value is not None and math.isfinite(value) else None


def cell_row(run_id: str, cell: CellResult, line: str) -> tuple[object, ...]:
    """Write a cell as its row of the table, with the line that other files have of it."""
    outputs = list(cell.accuracy.outputs.values()) if cell.accuracy else []
    tolerances = [output.minimum_tolerance for output in outputs]
    bounds = [tolerance for tolerance in tolerances if tolerance is not None]
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
        max(bounds) if bounds and len(bounds) == len(tolerances) else None,
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
        line,
        cell.card_sha256,
        cell.inputs_sha256,
        cell.pinned and _figure(cell.pinned.night_ratio),
        cell.machine and as_json(cell.machine),
    )
