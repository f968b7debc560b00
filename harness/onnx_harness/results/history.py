"""history.sqlite: every cell of every run, for whoever compares nights.

A rollback journal rather than a write-ahead log: between two cells the history is one file, which
CI can keep and restore as it is; a write-ahead log would leave the latest cells in a second file
that gets lost. Writers wait for one another, which costs nothing at a cell or so per second.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from onnx_harness.errors import ResultsError
from onnx_harness.results.cells import CellResult
from onnx_harness.results.codec import decode, line_of
from onnx_harness.results.history_rows import (
    BUSY_SECONDS,
    INSERT_CELL,
    Measured,
    NightFigures,
    PastCell,
    as_json,
    cell_row,
    explanation,
    is_read_only,
    night_figures,
    run_info,
    temporary_copy,
)
from onnx_harness.results.history_rows import MIGRATIONS as MIGRATIONS
from onnx_harness.results.levels import Level
from onnx_harness.results.run import RunInfo

FILE_NAME = "history.sqlite"
APPLICATION_ID = 0x6F6E7868
"""``onxh``: what tells this database from anybody else's."""
_PAGE_BYTES = 1 << 14


class History:
    """The history in one file. Use it as a context manager, or close it.

    Args:
        path: made if need be, with its folder.
        checked: whether a damaged file is refused at once, which takes reading it whole: before
            anything is added to it, or decided by it. Without it, nothing may be added.

    Raises:
        ResultsError: it can't be opened, is damaged, belongs to something else, or to a newer
            version.
    """

    def __init__(self, path: Path, *, checked: bool = True) -> None:
        self._path = path
        self._run_id = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(
                f"the history {path} can't be made: {error.strerror}"
            ) from error
        with self._explained():
            # Autocommit: transactions begin where the code says so.
            self._database = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None
            )
        try:
            with self._explained():
                # Of a new file: a cell takes more than half of SQLite's usual page of 4 KiB.
                self._database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                self._database.execute("PRAGMA foreign_keys = ON")
                if checked:
                    self._check_whole()
                try:
                    self._migrate()
                except sqlite3.OperationalError as error:
                    if checked or not is_read_only(error):
                        raise
                    self._database = temporary_copy(self._database)
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

    def put_all(self, cells: Sequence[CellResult], lines: Sequence[str] = ()) -> None:
        """Enter cells as :meth:`put` does, all of them or none.

        One commit for many: it's that which takes the disk's time.

        Args:
            cells: entered.
            lines: each by `codec.line_of`, where those were asked before.

        Raises:
            ResultsError: as for :meth:`put`.
        """
        rows = []
        for cell, line in zip(cells, lines or map(line_of, cells), strict=True):
            rows.append(cell_row(self._run_id, cell, line))
        with self._explained(), self._transaction():
            self._database.executemany(INSERT_CELL, rows)

    def adopt(self, run: RunInfo, cells: Sequence[CellResult]) -> int:
        """Enter those cells of another run that the history lacks.

        The run itself is entered where it lacks that.

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
            rows = (cell_row(run.id, cell, line_of(cell)) for cell in missing)
            self._database.executemany(INSERT_CELL.replace("REPLACE", "IGNORE"), rows)
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
        """Return how a cell ended in its ``last`` latest runs, oldest first.

        Raises:
            ResultsError: it can't be read.
        """
        query = """
            SELECT runs.json, cells.json FROM cells JOIN runs USING (run_id)
            WHERE cell_id = ? ORDER BY number DESC LIMIT ?
        """
        with self._explained():
            rows = self._database.execute(query, (cell_id, last)).fetchall()
            cells = [decode(CellResult, json.loads(text), "cell") for _, text in rows]
            runs = [run_info(text) for text, _ in rows]
        return tuple(map(PastCell, reversed(runs), reversed(cells)))

    def cells(self, run_id: str) -> tuple[CellResult, ...]:
        """The cells of a run, by id.

        Raises:
            ResultsError: it can't be read.
        """
        with self._explained():
            query = "SELECT json FROM cells WHERE run_id = ? ORDER BY cell_id"
            rows = self._database.execute(query, (run_id,)).fetchall()
            return tuple(decode(CellResult, json.loads(text), "cell") for (text,) in rows)

    def nights(self, run_id: str, *, last: int) -> Iterator[NightFigures]:
        """Yield the figures of a run's cells, in it and in the runs entered before it.

        They're read as they're asked for: months of thousands of cells don't fit into memory.

        Args:
            run_id: the run that comes last.
            last: runs to go back to, itself included.

        Yields:
            Cell by cell, each in the order of the runs; nothing where the history doesn't have the
            run.

        Raises:
            ResultsError: it can't be read.
        """
        query = """
            SELECT run_id, cell_id, status, median_ms, speedup, speedup_low, speedup_high,
                CASE WHEN pinned_ratio IS NOT NULL THEN
                    (SELECT json_extract(json, '$.pinned') FROM cells AS whole
                     WHERE (whole.run_id, whole.cell_id) = (night.run_id, night.cell_id))
                END,
                machine
            FROM cells AS night JOIN runs USING (run_id)
            WHERE cell_id IN (SELECT cell_id FROM cells WHERE run_id = :run)
                AND number <= (SELECT number FROM runs WHERE run_id = :run)
                AND number > :run_before_those
            ORDER BY cell_id, number
        """
        runs = self._until(run_id, last)
        if not runs:
            return
        first = min(number for number, _ in runs.values())
        with self._explained():
            words = {"run": run_id, "run_before_those": first - 1}
            for name, *figures in self._database.execute(query, words):
                yield night_figures(runs[name][1], *figures)

    def _until(self, run_id: str, last: int) -> dict[str, tuple[int, RunInfo]]:
        """Return a run and those before it, ``last`` in all: each with its number, by id."""
        query = """
            SELECT run_id, number, json FROM runs
            WHERE number <= (SELECT number FROM runs WHERE run_id = ?)
            ORDER BY number DESC LIMIT ?
        """
        with self._explained():
            rows = self._database.execute(query, (run_id, last)).fetchall()
            return {name: (number, run_info(text)) for name, number, text in rows}

    def run_before(self, run_id: str) -> RunInfo | None:
        """Return the latest earlier run that has a cell of this one; None without one.

        Raises:
            ResultsError: it can't be read.
        """
        query = """
            SELECT json FROM runs
            WHERE number < (SELECT number FROM runs WHERE run_id = :run)
                AND EXISTS (
                    SELECT 1 FROM cells AS theirs JOIN cells AS ours USING (cell_id)
                    WHERE theirs.run_id = runs.run_id AND ours.run_id = :run
                )
            ORDER BY number DESC LIMIT 1
        """
        with self._explained():
            row = self._database.execute(query, {"run": run_id}).fetchone()
            return None if row is None else run_info(row[0])

    def measured(self) -> dict[str, Measured]:
        """Return what each cell took in the latest run that judged it, by cell id.

        Raises:
            ResultsError: it can't be read.
        """
        # SQLite takes the other columns from the row that has the maximum
        # (https://sqlite.org/lang_select.html#bareagg). Of the JSON only the latest is read.
        query = """
            SELECT cell_id, json_extract(cells.json, '$.peak_bytes'),
                (SELECT total(value) FROM json_each(cells.json, '$.seconds'))
            FROM (
                SELECT cell_id, run_id, max(number)
                FROM cells JOIN runs USING (run_id) GROUP BY cell_id
            ) JOIN cells USING (run_id, cell_id)
        """
        with self._explained():
            rows = self._database.execute(query).fetchall()
        return {cell_id: Measured(seconds, peak) for cell_id, peak, seconds in rows}

    def note_accepted(self, levels: Sequence[Level]) -> None:
        """Keep who moved which levels, when and why: all of them or none.

        Raises:
            ResultsError: it can't be written.
        """
        rows = []
        for level in levels:
            rows.append(
                (
                    level.cell.id,
                    level.processor,
                    level.run_id,
                    level.accepted,
                    level.who,
                    level.why,
                    as_json(level),
                )
            )
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
            query = "SELECT json FROM accepted ORDER BY number"
            rows = self._database.execute(query).fetchall()
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
            as_json(run.versions),
            as_json(run),
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
            query = "SELECT count(*) FROM sqlite_master"
            [tables] = self._database.execute(query).fetchone()
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
                # executescript() would end the transaction.
                for statement in script.split(";\n"):
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
        """Turn what SQLite says into what happened and what to do.

        Within a sound file a text may be damaged, which SQLite doesn't look at.
        """
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            what, mend = explanation(error)
            raise ResultsError(
                f"the history {self._path} {what} ({error}). Mend: {mend}. The results of this "
                f"run are in results.json."
            ) from error
