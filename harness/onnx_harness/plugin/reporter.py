"""The guard and the account of a run, in the process that reports."""

from __future__ import annotations

import gc
import json
import shlex
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from onnx_harness.errors import HarnessError, ResultsError, UsageError
from onnx_harness.plugin.collectors import ModelModule
from onnx_harness.plugin.state import (
    SELECTIONS,
    SHARD,
    asked_for_cells,
    dest,
    folder_hint,
    most_cells,
    only_models,
    runner_of,
    settings_of,
)
from onnx_harness.plugin.summary import show_account

if TYPE_CHECKING:
    from onnx_harness.results.cells import CellResult
    from onnx_harness.run.account import Account
    from onnx_harness.settings import Settings


class Reporter:
    """Guards and records the run, in the process that reports.

    The controller of xdist, or the only one.
    """

    _has_frozen: ClassVar[bool] = False  # objects that aren't looked at as garbage

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._account: Account | None = None
        self._planned: int | None = None
        self._nothing_judged = False
        self._session_is_empty = False
        self._collects_later = False
        if Reporter._has_frozen:  # an earlier session of this process
            gc.unfreeze()
            Reporter._has_frozen = False
        self._remarks: list[str] = []
        self._stored: dict[str, CellResult] = {}  # by node id: no need to decode those

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Under xdist, refuse before any worker is started: what they collect isn't known here."""
        config = session.config
        try:
            if config.stash[SELECTIONS]:
                from onnx_harness.cards import backend_suite

                # Once, before the processes of xdist want them.
                backend_suite.cards(config.stash[SELECTIONS])
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from None
        if config.pluginmanager.hasplugin("dsession"):
            for option in ("jobs", "cluster"):
                if config.getoption(dest(option)) not in (None, "", 1):
                    raise pytest.UsageError(
                        f"--{option} and -n (xdist) both judge in parallel: name one of them"
                    )
            if asked_for_cells(config) or only_models(config):
                self._begin_run()
        elif only_models(config) and not (config.option.collectonly or _starts_late(config)):
            from onnx_harness.run.jobs import job_count

            runner_of(config).start(job_count(settings_of(config).jobs), most_cells(config))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Refuse before anything runs.

        When all has run, have the doubtful latencies measured again.
        """
        listed = session.config.option.collectonly
        items = [] if listed else session.items
        cells = [item for item in items if isinstance(item.parent, ModelModule)]
        # What couldn't be collected ends the run in pytest's own loop: nothing may be begun, or the
        # last report go.
        broken = (
            session.testsfailed and not session.config.option.continue_on_collection_errors
        )
        if cells and not broken:
            from onnx_harness.run.arrange import is_latency
            from onnx_harness.run.selection import planned_cells

            self._planned = planned_cells(cells)
            # Before it's asked what is done: its machines' verdicts count.
            self._join_cluster()
            timed = sum(map(is_latency, cells))
            if settings_of(self._config).resume and len(cells) == len(session.items):
                self._pause_collection()
            done = all(map(self._is_done, cells))
            if not done:
                self._resume_collection()
            self._begin_run(timed=timed, done=done)
            self._start_jobs(cells)
            self._show_pace(cells)
            self._pass_over_done()
        elif SHARD in self._config.stash and not (cells or broken or listed):
            # The run has cells, and this part none: a merger has to see that it isn't missing.
            self._planned = 0
            self._begin_run(done=True)
            self._say(f"no cell falls to this part, {self._config.stash[SHARD].label}")
        ended = yield
        if self._account is not None:
            for result in runner_of(self._config).settle(self._say):
                self._account.update(result)
        return ended

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a verdict down as soon as it's there."""
        for warning in getattr(report, "onnx_warnings", ()):
            runner_of(self._config).warnings[warning] = None
        for line in getattr(report, "onnx_own_results", ()):
            self._put(report, line, license="", suite="")
        if hasattr(report, "onnx_result"):
            line, entry, suite = report.onnx_result, report.onnx_entry, report.onnx_suite
            self._put(report, line, license=report.onnx_license, suite=suite, entry=entry)

    def _put(
        self,
        report: pytest.TestReport,
        line: str,
        *,
        license: str,
        suite: str,
        entry: dict[str, Any] | None = None,
    ) -> None:
        from onnx_harness.report.table import ModelHeader
        from onnx_harness.results.cells import CellResult
        from onnx_harness.results.codec import decode
        from onnx_harness.results.recorder import NO_ENTRY, Entry

        stored = self._stored.pop(report.nodeid, None)
        result = stored or decode(CellResult, json.loads(line), report.nodeid)
        size = result.graph.bytes_before if result.graph else None
        try:
            account = self._begun()
        except ResultsError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        path = report.nodeid.partition("::")[0]
        header = ModelHeader(license, size, result.opset, path)
        own = Entry(**entry) if entry else NO_ENTRY
        account.put(result, header, suite=suite, entry=own, line=line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what is written once.

        A run whose results are lost, or that has none, doesn't end as a success.
        """
        self._session_is_empty = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if self._account is not None:
            try:
                self._account.finish()
            except KeyboardInterrupt:  # else pytest ends in a traceback
                session.exitstatus = pytest.ExitCode.INTERRUPTED
            lost = self._account.incomplete or self._account.unjudged()
            if lost and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._collects_later:
            # Pytest looks for garbage when it ends, and Python does: of ten thousand tests that
            # takes three seconds, and of a run that judged nothing there is none.
            gc.freeze()
            Reporter._has_frozen = True
        self._resume_collection()
        wants_cells = asked_for_cells(self._config) and not self._config.option.collectonly
        judged = self._account is not None and self._account.cells
        if wants_cells and not judged and session.exitstatus == pytest.ExitCode.OK:
            self._nothing_judged = True
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table."""
        if self._nothing_judged:
            terminalreporter.write_line(
                "onnx-harness: a provider or a variant was asked for, and no cell was judged. "
                "Name a .onnx, a card or "
                "a folder of the ini option onnx_model_paths, and leave its test_accuracy "
                "selected.",
                red=True,
            )
        if self._session_is_empty and (hint := folder_hint(self._config)):
            terminalreporter.write_line(f"onnx-harness: {hint}", yellow=True)
        for remark in dict.fromkeys(self._remarks):
            terminalreporter.write_line(f"onnx-harness: {remark}", yellow=True)
        if self._account is None or not self._account.cells:
            return
        show_account(terminalreporter, self._config, self._account)

    def _show_pace(self, tests: Sequence[pytest.Item]) -> None:
        """On a terminal, have the progress shown; a quiet run shows none."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or not terminal.isatty() or terminal.verbosity < 0:
            return
        from onnx_harness.plugin.pace import Pace
        from onnx_harness.run.arrange import cell_of

        named = {
            test.nodeid: (cell_of(test).id, getattr(test, "originalname", ""))
            for test in tests
        }
        self._config.pluginmanager.register(Pace(terminal, named), "onnx-harness-pace")

    def _pause_collection(self) -> None:
        """Look for no garbage until the reports are written: no test and no verdict is any."""
        self._collects_later = gc.isenabled()
        gc.disable()

    def _resume_collection(self) -> None:
        if self._collects_later:
            gc.enable()
        self._collects_later = False

    def _pass_over_done(self) -> None:
        """With ``--resume``, have the tests whose verdict is there reported without a run."""
        from onnx_harness.plugin.resumed import Resumed, wants_phases

        if settings_of(self._config).resume and not wants_phases(self._config):
            past = runner_of(self._config).past
            resumed = Resumed(past, self._is_done, self._stored.__setitem__)
            self._config.pluginmanager.register(resumed, "onnx-harness-resumed")

    def _start_jobs(self, tests: Sequence[pytest.Item]) -> None:
        """Begin to judge the cells of the tests in the background, as far as they may be.

        With ``--jobs`` all of them; else the one after that which is asked for, unless one is timed
        meanwhile.
        """
        settings = settings_of(self._config)
        if settings.cluster:
            self._start_cluster(tests)
            return
        if self._config.option.collectonly:
            return
        from onnx_harness.run.arrange import cells_to_judge, groups_to_judge, is_latency
        from onnx_harness.run.jobs import job_count

        runner = runner_of(self._config)
        if settings.jobs != 1:
            if groups := groups_to_judge(tests, runner.past, settings.report_dir):
                runner.start_jobs(groups, job_count(settings.jobs))
        elif self._is_untimed() or not any(map(is_latency, tests)):
            runner.judge_ahead(cells_to_judge(tests, runner.past))

    def _is_untimed(self) -> bool:
        """Return whether pytest-benchmark was told to time nothing."""
        option = self._config.option
        return bool(
            getattr(option, "benchmark_skip", False)
            or getattr(option, "benchmark_disable", False)
        )

    def _start_cluster(self, tests: Sequence[pytest.Item]) -> None:
        """Begin to judge the cells of the tests on the cluster.

        Those that have a test for it are timed, too.
        """
        from onnx_harness.run.arrange import cell_of, groups_to_judge, is_latency

        settings, runner = settings_of(self._config), runner_of(self._config)
        groups = groups_to_judge(tests, runner.past, settings.report_dir, by_provider=True)
        begun = set()
        for group in groups:
            for cell in group.cells:
                begun.add(cell.id)
        timed = []
        for test in tests:
            if is_latency(test) and not self._is_untimed():
                timed.append(cell_of(test))
        if groups:
            timed = [cell for cell in timed if cell.id in begun]
            runner.start_cluster(groups, timed, self._say_later)

    def _say_later(self, line: str) -> None:
        """Keep what the cluster's thread has to say for the end: the terminal is pytest's."""
        self._remarks.append(line)

    def _is_done(self, item: pytest.Item) -> bool:
        """Return whether an earlier run made the verdict of a test, so that it needs no session."""
        past = runner_of(self._config).past
        cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
        earlier = past.verdict(cell)
        if earlier is None or getattr(item, "originalname", "") != "test_latency":
            return earlier is not None
        untimed = earlier.status != "pass" or getattr(
            self._config.option, "benchmark_skip", False
        )
        return untimed or past.timed(cell) is not None

    def _begin_run(self, timed: int = 0, *, done: bool = False) -> None:
        """Begin the run, or end it with a usage error.

        It begins if every provider asked for works and results can be recorded.

        Args:
            timed: how many cells' latency is to be measured.
            done: nothing is left to run: no provider is needed.

        Raises:
            pytest.UsageError: one doesn't; it's never a skip and never a silent run on the CPU.
        """
        from onnx_harness.providers.probe import conflict, refusal

        if self._config.option.collectonly:
            return
        if problem := conflict():
            raise pytest.UsageError(
                f"{problem.reason}. Mend: {problem.mend}\nNothing was run."
            )
        for name in () if done else settings_of(self._config).provider:
            availability = runner_of(self._config).probe(name)
            if not availability.usable:
                raise pytest.UsageError(refusal(availability))
        try:
            if settings_of(self._config).gate_reference is not None and not done:
                if self._config.pluginmanager.hasplugin("dsession"):
                    raise UsageError(
                        "--gate-reference times each cell, which -n (xdist) can't: run without -n"
                    )
                shard = self._config.stash.get(SHARD, None)
                whole = None if shard is None else shard.timed
                why = runner_of(self._config).check_reference(timed, whole)
                if why is not None:
                    self._say(f"beside the pinned reference: {why}")
            self._begun()
        except HarnessError as error:
            raise pytest.UsageError(f"{error}\nNothing was run.") from None

    def _join_cluster(self) -> None:
        settings = settings_of(self._config)
        if not settings.cluster:
            return
        from onnx_harness.run.cluster.coordinator import Cluster
        from onnx_harness.run.jobs import job_count

        processes = job_count(0 if settings.jobs == 1 else settings.jobs)
        try:
            cluster = Cluster(settings, processes)
        except UsageError as error:
            raise pytest.UsageError(f"{error}\nNothing was run.") from None
        runner_of(self._config).join_cluster(cluster)
        self._remarks += cluster.differing()

    def _say(self, line: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"onnx-harness: {line}")

    def _begun(self) -> Account:
        if self._account is None:
            from onnx_harness.results.run import gather
            from onnx_harness.run.account import Account
            from onnx_harness.run.selection import selection

            settings = settings_of(self._config)
            command = shlex.join(["pytest", *self._config.invocation_params.args])
            run = gather(command, settings.seed, runner_of(self._config).devices)
            run = replace(
                run, selection=selection(self._config, settings), planned=self._planned
            )
            if SHARD in self._config.stash:
                run = replace(run, shards=(self._config.stash[SHARD].label,))
            self._account = Account(settings.report_dir, run)
            self._add_automation(settings)
        return self._account

    def _add_automation(self, settings: Settings) -> None:
        """Register what writes for machines, now that there is something to write."""
        from onnx_harness.run.automation import Automation, on_github

        if settings.sarif is not None or on_github():
            automation = Automation(lambda: self._account, settings.sarif)
            self._config.pluginmanager.register(automation, "onnx-harness-automation")


def _starts_late(config: pytest.Config) -> bool:
    """Return whether the local cell process may turn out not to be needed."""
    settings = settings_of(config)
    return settings.resume or bool(settings.cluster)
