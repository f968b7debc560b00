"""The pytest plugin: options, collection of models, and the account at the end of a run.

It collects a model only when it's named on the command line or lies under ``onnx_model_paths``, so installing it
never changes somebody else's test run. Loading it imports neither onnx nor onnxruntime.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import os
import shlex
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

# Whoever runs plain tests pays for these, and for what they import: the other rooms come when a model is named.
from onnx_harness.cards import suite_options
from onnx_harness.errors import HarnessError, ResultsError, UsageError
from onnx_harness.names import is_model_file
from onnx_harness.settings import OPTIONS, Settings, combine, read_project

if TYPE_CHECKING:
    from onnx_harness.cards import backend_suite
    from onnx_harness.cards.card import Card
    from onnx_harness.names import Variant
    from onnx_harness.report.failures import Told
    from onnx_harness.results.cells import CellResult
    from onnx_harness.results.recorder import Entry
    from onnx_harness.run import own_tests
    from onnx_harness.run.account import Account
    from onnx_harness.run.runner import Runner

# Each is also spelled without `onnx-`, where no other plugin owns that spelling.
_OPTIONS = {option.flag: option for option in OPTIONS.values() if option.help}

_LOG_WIDTH = 120
_ORDERED = ("failedfirst", "newfirst")  # pytest's own options that choose the order of tests

_settings = pytest.StashKey[Settings]()
_selections = pytest.StashKey[Sequence["backend_suite.Selection"]]()
_variants = pytest.StashKey[tuple["Variant", ...]]()
_runner = pytest.StashKey["Runner"]()
_own_results = pytest.StashKey[list["CellResult"]]()
_result = pytest.StashKey["CellResult"]()
_entry: pytest.StashKey[Entry] = pytest.StashKey()
_shard = pytest.StashKey[str]()
_modules = pytest.StashKey[dict[Path, Path]]()  # a model's card (or itself) -> the file that its module is made of


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options under the names that are surely ours, and the ini value."""
    group = parser.getgroup("onnx-harness", "ONNX models")
    for name, option in _OPTIONS.items():
        group.addoption(f"--onnx-{name}", dest=_dest(name), **option.arguments)
    group.addoption(
        f"--{suite_options.NAME}",
        action="append",
        nargs="?",
        const=suite_options.ALL,
        metavar="KIND",
        help="the official cases of ONNX's operators: "
        f"{', '.join(suite_options.KINDS)}, all (the default) or KIND/CASE; repeatable",
    )
    group.addoption("--onnx-update", action="store_true", help="write the golden outputs of onnx_snapshot anew")
    parser.addini("onnx_model_paths", "folders whose .onnx files and model cards are collected", type="paths")


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Add the short spellings that were typed, after plugins and conftests had their chance to own them.

    One that wasn't typed is left free: a conftest further down, loaded during collection, may still declare it.
    """
    written = {argument.partition("=")[0] for argument in args}
    # Not by trying: which error pytest raises, and whether it's now or when the line is parsed, is up to its version.
    taken = {name for group in (*parser._groups, parser._anonymous) for each in group.options for name in each.names()}
    for name, option in _OPTIONS.items():
        short = f"--{name}"
        if short not in taken and written & {short, "-h", "--help"}:
            group = parser.getgroup("onnx-harness")
            group.addoption(short, dest=_dest(name), **{**option.arguments, "help": f"--onnx-{name}"})


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle what was asked for; a misspelling is a usage error before anything is collected."""
    given = {option.key: config.getoption(_dest(name)) for name, option in _OPTIONS.items()}
    given |= {name: tuple(given[name]) for name in ("provider", "variant") if given[name]}
    try:
        config.stash[_selections] = _chosen_cases(config)
        project = read_project(config.rootpath)
        said = [value for value in given.values() if value is not None and value is not False and value != ()]
        if project or said:
            _settle(config, project, given)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_modules] = {}
    config.addinivalue_line(
        "markers", "onnx(variant=…, provider=…): what onnx_verify and onnx_snapshot judge; lists make a test for each"
    )
    if config.stash[_selections] and config.args_source is not pytest.Config.ArgsSource.ARGS:
        # The suite alone was asked for, and not this project's own tests.
        config.args, config.args_source = [], pytest.Config.ArgsSource.ARGS
        config.option.reportchars = "fE"  # the account counts what is skipped or known, by the thousand
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reporter(config), "onnx-harness-reporter")
        config.pluginmanager.register(_Failures(), "onnx-harness-failures")
    if getattr(config.option, "benchmark_histogram", None) and importlib.util.find_spec("pygal") is None:
        # pytest-benchmark finds out when all is measured, and ends with a traceback.
        raise pytest.UsageError("--benchmark-histogram needs pygal. Mend: pip install 'pytest-benchmark[histogram]'")
    if _only_models(config) and hasattr(config.option, "benchmark_quiet"):
        # The account at the end says what pytest-benchmark's table says, beside the verdicts.
        # Its files, histograms and comparisons are written where it isn't quiet.
        words = ("save", "autosave", "compare", "compare_fail", "histogram", "cprofile")
        asked = any(getattr(config.option, f"benchmark_{word}", None) for word in words)
        config.option.benchmark_quiet = not asked


def _chosen_cases(config: pytest.Config) -> Sequence[backend_suite.Selection]:
    words = config.getoption(_dest("backend-suite"))
    if not words:
        return ()
    from onnx_harness.cards import backend_suite

    return backend_suite.choose(words)


def _settle(config: pytest.Config, project: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Keep the settings and variants of the run.

    Raises:
        UsageError: a value is out of its range, or there is no such provider or variant.
    """
    from onnx_harness.cell import matrix

    settings = combine(project, given)
    settings = replace(settings, provider=matrix.check_providers(settings.provider))
    if settings.resume and settings.report_dir is None:
        raise UsageError("--resume takes verdicts from the report folder: name it with --report-dir")
    if settings.resume and settings.gate_reference is not None:
        raise UsageError("--resume and --gate-reference exclude each other: a night is measured as a whole")
    config.stash[_settings] = settings
    config.stash[_variants] = matrix.expand_variants(settings.variant, settings.variants)


def _settings_of(config: pytest.Config) -> Settings:
    """Return the settings of the run; nothing is settled before it's needed where nothing was said."""
    if _settings not in config.stash:
        _settle(config, {}, {})
    return config.stash[_settings]


@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def pytest_arrange_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is another shard's; with ``--jobs``, take accuracy first, and latency when nothing else runs."""
    places = [place for place, item in enumerate(items) if isinstance(item.parent, ModelModule)]
    if not places:
        return
    settings = _settings_of(config)
    if settings.shard is None and settings.jobs == 1:
        return
    from onnx_harness.run import arrange

    if settings.jobs != 1 and not any(config.getoption(each, False) for each in _ORDERED):
        ordered = arrange.in_order_of_jobs([items[place] for place in places], settings.report_dir)
        for place, item in zip(places, ordered, strict=True):
            items[place] = item
    if settings.shard is not None:
        tests = [items[place] for place in places]
        shard = arrange.shard_of(tests, *settings.shard, settings.report_dir)
        others = set(shard.left_out)
        config.stash[_shard] = shard.label
        config.hook.pytest_deselected(items=list(shard.left_out))
        items[:] = [item for item in items if item not in others]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker process."""
    runner = config.stash.get(_runner, None)
    if runner is not None:
        runner.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Make a module of a model that was named, or that lies under ``onnx_model_paths``."""
    if not is_model_file(file_path):
        return None
    from onnx_harness.cell import matrix

    # pytest itself forgets an argument that lies in the folder of another one.
    named = parent.session.isinitpath(file_path) or file_path in _arguments(parent.config)
    folders = [*parent.config.getini("onnx_model_paths"), *_named_folders(parent.config)]
    if not named and not any(file_path.is_relative_to(folder) for folder in folders):
        return None
    if not named and file_path.suffix == ".onnx" and matrix.card_beside(file_path).is_file():
        return None  # its card stands for it
    return ModelModule.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give models whose stems repeat names of their own, now that all of them are known."""
    ours = [item for item in items if type(item.parent) is ModelModule]
    if not ours:
        return
    from onnx_harness.cell import matrix

    cards = [item.callspec.params["onnx_cell"].card for item in ours]  # type: ignore[attr-defined]
    named = matrix.with_distinct_names(cards, [*config.getini("onnx_model_paths"), *_named_folders(config)])
    for item, card in zip(ours, cards, strict=True):
        if named[card.path].name != card.name:
            parameters = item.callspec.params  # type: ignore[attr-defined]
            parameters["onnx_cell"] = replace(parameters["onnx_cell"], card=named[card.path])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Add the suite of ONNX's operators to what the paths on the command line gave."""
    report = yield
    if isinstance(collector, pytest.Session) and report.passed and collector.config.stash[_selections]:
        folder = collector.config.rootpath / suite_options.NAME  # it needn't be there: node ids begin with it
        report.result.append(BackendSuite.from_parent(collector, path=folder))
    return report


class BackendSuite(pytest.Directory):
    """The official cases of ONNX's operators, a module each."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """A module for each case that was asked for."""
        from onnx_harness.cards import backend_suite

        try:
            cards = backend_suite.cards(self.config.stash[_selections])
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        for card in cards:
            yield CaseModule.from_parent(self, path=self.path / backend_suite.case_of(card), card=card)


class ModelModule(pytest.Module):
    """A model as a test module: the tests of ``onnx_harness.suite``, once for each of its cells."""

    def _getobj(self) -> Any:
        if self.config.pluginmanager.hasplugin("benchmark"):
            return importlib.import_module("onnx_harness.suite")
        return _suite_without_benchmark()

    def card(self) -> Card:
        """The card of the model."""
        from onnx_harness.cell import matrix

        return matrix.card_or_problem(self.path)

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """The tests, cell by cell: what is known of a cell is complete before the next begins."""
        from onnx_harness.cell.matrix import Cell

        try:
            card = self.card()
            settings = _settings_of(self.config)
            variants = self.config.stash[_variants]
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        if self.config.stash[_modules].setdefault(card.path, self.path) != self.path:
            return []  # a model and its card were both named, as by `pytest models/*`
        self.cells = [Cell(card, variant, provider) for provider in settings.provider for variant in variants]
        items = list(super().collect())
        tests = len(items) // max(len(self.cells), 1)
        return [item for cell in range(len(self.cells)) for item in items[cell :: len(self.cells)][:tests]]


class CaseModule(ModelModule):
    """A case of the suite as a test module. A case isn't timed: it takes microseconds."""

    def __init__(self, *args: Any, card: Card, **others: Any) -> None:
        super().__init__(*args, **others)
        self._card = card

    def _getobj(self) -> Any:
        return _accuracy_alone()

    def card(self) -> Card:
        """The card that was made of the case."""
        return self._card


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the suite over the module's cells, and a test of one's own over what its marker lists."""
    marker = metafunc.definition.get_closest_marker("onnx")
    if marker is not None and "_onnx_choice" in metafunc.fixturenames:
        from onnx_harness.run.own_tests import choices_of

        try:
            choices = choices_of(marker)
        except UsageError as error:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
        ids = ["-".join(choice.values()) for choice in choices] if len(choices) > 1 else [pytest.HIDDEN_PARAM]
        metafunc.parametrize("_onnx_choice", choices, ids=ids, indirect=True)
    module = metafunc.definition.parent
    if isinstance(module, ModelModule) and "onnx_cell" in metafunc.fixturenames:
        ids = [f"{cell.variant.id}-{cell.provider}" for cell in module.cells]
        metafunc.parametrize("onnx_cell", module.cells, ids=ids)


@pytest.fixture
def _onnx_choice(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Return the variant and the provider of the test's marker, one of several where it names several."""
    return getattr(request, "param", {})


@pytest.fixture
def _onnx_own_test(
    request: pytest.FixtureRequest, _onnx_runner: Runner, _onnx_choice: Mapping[str, str]
) -> own_tests.OwnTest:
    from onnx_harness.run.own_tests import OwnTest

    results = request.node.stash.setdefault(_own_results, [])
    return OwnTest(request.node, _onnx_runner, results.append, _onnx_choice)


@pytest.fixture
def onnx_verify(_onnx_own_test: own_tests.OwnTest) -> own_tests.OnnxVerify:
    """Judge a model by its variant=…, candidate=… or reference=…, on inputs=…, within rtol=… and atol=…."""
    from onnx_harness.run.own_tests import OnnxVerify

    return OnnxVerify(_onnx_own_test)


@pytest.fixture
def onnx_snapshot(_onnx_own_test: own_tests.OwnTest, pytestconfig: pytest.Config) -> own_tests.OnnxSnapshot:
    """Compare a model's outputs, on inputs=…, with golden ones, which --onnx-update writes; it's called."""
    from onnx_harness.run.own_tests import OnnxSnapshot

    return OnnxSnapshot(_onnx_own_test, update=pytestconfig.getoption("onnx_update"))


@pytest.fixture(scope="session")
def _onnx_runner(request: pytest.FixtureRequest) -> Runner:
    """What judges and times cells; its worker process lives as long as the run."""
    return _runner_of(request.config)


@pytest.fixture
def _onnx_record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep the verdict for the report, with the key of its file."""
    past = _runner_of(request.config).past
    cell = request.node.callspec.params["onnx_cell"]

    def record(result: CellResult, *, reused: bool = False) -> None:
        from onnx_harness.report.junit import properties

        request.node.stash[_result] = result
        request.node.user_properties.extend(properties(result))
        request.node.stash[_entry] = past.entry(cell, reused=reused)

    return record


@pytest.fixture
def _onnx_progress(request: pytest.FixtureRequest) -> Generator[Callable[[str], None]]:
    """Shows what takes long on a line of its own, which is gone in the end; on a terminal only."""
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    shown = False

    def show(text: str) -> None:
        nonlocal shown
        if terminal is None or not terminal.isatty():
            return
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if not shown:
                terminal.ensure_newline()
            terminal.rewrite(text, erase=True)
            terminal.flush()
        shown = True

    yield show
    if shown:
        show("")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the verdict to the report: that way it also reaches the controller of xdist."""
    report = yield
    if report.when == "call" and _result in item.stash:
        from onnx_harness.results.codec import encode

        cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
        card = cell.card
        vars(report).update(onnx_result=encode(item.stash[_result]), onnx_license=card.license, onnx_suite=card.suite)
        vars(report).update(onnx_entry=asdict(item.stash[_entry]))
    if report.when == "call" and (results := item.stash.get(_own_results, None)):
        from onnx_harness.results.codec import encode

        vars(report).update(onnx_own_results=[encode(result) for result in results])
    return report


class _Failures:
    """Shows each cause of failing cells once: pytest would show it for each of them."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
        """Have pytest's own sections see a report for each cause; what it counts are all of them."""
        failed = terminalreporter.stats.get("failed", [])
        if not any(_cells_of(report) for report in failed):
            return (yield)
        from onnx_harness.report.failures import told

        width = terminalreporter._tw.fullwidth
        cells = {cell.id: (cell, report) for report in failed for cell in _cells_of(report)}
        verbose = terminalreporter.verbosity > 0
        groups = [[cell] for cell, _ in cells.values()] if verbose else [[cell for cell, _ in cells.values()]]
        shown = [cause for group in groups for cause in told(group, width)]
        terminalreporter.stats["failed"] = [
            *(_shown(cells[cause.cell.id][1], cause) for cause in shown),
            *(report for report in failed if not _cells_of(report)),
        ]
        try:
            return (yield)
        finally:
            terminalreporter.stats["failed"] = failed


class _Said:
    """A report's text, as pytest's terminal takes it."""

    def __init__(self, cause: Told) -> None:
        self._cause = cause
        self.reprcrash = SimpleNamespace(message=cause.summary)

    def toterminal(self, writer: Any) -> None:
        """Write the lines."""
        from onnx_harness.report.github import inert

        for line in self._cause.lines:
            writer.line(inert(line))


def _shown(report: pytest.TestReport, cause: Told) -> pytest.TestReport:
    shown = copy.copy(report)
    shown.longrepr = _Said(cause)  # type: ignore[assignment]
    shown.location = (report.location[0], report.location[1], cause.title)
    return shown


def _cells_of(report: pytest.TestReport) -> list[CellResult]:
    """Return the failing cells that a report carries."""
    encoded = [*getattr(report, "onnx_own_results", ())]
    if hasattr(report, "onnx_result"):
        encoded.append(report.onnx_result)
    if not encoded:
        return []
    from onnx_harness.report.figures import BAD
    from onnx_harness.results.cells import CellResult
    from onnx_harness.results.codec import decode

    cells = [decode(CellResult, value, report.nodeid) for value in encoded]
    return [cell for cell in cells if cell.status in BAD]


class _Reporter:
    """Guards and records the run, in the process that reports: the controller of xdist, or the only one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._account: Account | None = None
        self._verdicts = 0
        self._planned: int | None = None
        self._nothing_judged = False
        self._session_is_empty = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Under xdist, refuse before any worker is started: what they collect isn't known here."""
        config = session.config
        try:
            if config.stash[_selections]:
                from onnx_harness.cards import backend_suite

                backend_suite.cards(config.stash[_selections])  # once, before the processes of xdist want them
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from None
        if config.pluginmanager.hasplugin("dsession"):
            if config.getoption(_dest("jobs")) not in (None, 1):
                raise pytest.UsageError("--jobs and -n (xdist) both judge in parallel: name one of them")
            if _asked_for_cells(config) or _only_models(config):
                self._begin_run()
        elif _only_models(config) and not (config.option.collectonly or _settings_of(config).resume):
            _runner_of(config).start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Refuse before anything runs; when all has run, have the doubtful latencies measured again."""
        listed = session.config.option.collectonly
        cells = [] if listed else [item for item in session.items if isinstance(item.parent, ModelModule)]
        # What couldn't be collected ends the run in pytest's own loop: nothing may be begun, or the last report go.
        broken = session.testsfailed and not session.config.option.continue_on_collection_errors
        if cells and not broken:
            from onnx_harness.run.selection import planned_cells

            timed = sum(getattr(item, "originalname", "") == "test_latency" for item in cells)
            self._planned = planned_cells(cells)
            self._begin_run(timed=timed, done=all(map(self._is_done, cells)))
            self._start_jobs(cells)
        ended = yield
        if self._account is not None:
            for result in _runner_of(self._config).settle(self._say):
                self._account.update(result)
        return ended

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a verdict down as soon as it's there."""
        for encoded in getattr(report, "onnx_own_results", ()):
            self._put(report, encoded, license="", suite="")
        if hasattr(report, "onnx_result"):
            entry = report.onnx_entry
            self._put(report, report.onnx_result, license=report.onnx_license, suite=report.onnx_suite, entry=entry)

    def _put(
        self,
        report: pytest.TestReport,
        encoded: Any,
        *,
        license: str,
        suite: str,
        entry: dict[str, Any] | None = None,
    ) -> None:
        from onnx_harness.report.table import ModelHeader
        from onnx_harness.results.cells import CellResult
        from onnx_harness.results.codec import decode
        from onnx_harness.results.recorder import NO_ENTRY, Entry

        result = decode(CellResult, encoded, report.nodeid)
        size = result.graph.bytes_before if result.graph else None
        try:
            account = self._begun()
        except ResultsError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        path = report.nodeid.partition("::")[0]
        header = ModelHeader(license, size, result.opset, path)
        account.put(result, header, suite=suite, entry=Entry(**entry) if entry else NO_ENTRY)
        self._verdicts += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what is written once. A run whose results are lost, or that has none, doesn't end as a success."""
        self._session_is_empty = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if self._account is not None:
            self._account.finish()
            lost = self._account.incomplete or self._account.unjudged()
            if lost and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        asked = _asked_for_cells(self._config) and not self._config.option.collectonly
        if asked and not self._verdicts and session.exitstatus == pytest.ExitCode.OK:
            self._nothing_judged = True
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table."""
        if self._nothing_judged:
            terminalreporter.write_line(
                "onnx-harness: a provider or a variant was asked for, and no cell was judged. Name a .onnx, a card or "
                "a folder of the ini option onnx_model_paths, and leave its test_accuracy selected.",
                red=True,
            )
        if self._session_is_empty and (hint := _folder_hint(self._config)):
            terminalreporter.write_line(f"onnx-harness: {hint}", yellow=True)
        if self._account is None or not self._verdicts:
            return
        terminalreporter.section("onnx-harness", sep="=")
        width = self._config.get_terminal_writer().fullwidth
        if not terminalreporter.isatty():  # a log has no width of its own: it gets every column
            width = max(width, _LOG_WIDTH)
        from onnx_harness.results.cache import fallback_note

        if note := fallback_note():
            terminalreporter.write_line(f"onnx-harness: {note}", yellow=True)
        from onnx_harness.report.github import inert

        details = self._config.option.tbstyle == "no"  # else FAILURES has them, each once
        for line in self._account.lines(width=width, quiet=terminalreporter.verbosity < 0, details=details):
            markup = {line.style: True} if line.style else {}
            terminalreporter.write_line(inert(line.text), **markup)

    def _start_jobs(self, tests: Sequence[pytest.Item]) -> None:
        """With ``--jobs``, begin to judge the cells of the tests in the background."""
        settings = _settings_of(self._config)
        if settings.jobs == 1 or self._config.option.collectonly:
            return
        from onnx_harness.run.arrange import groups_to_judge
        from onnx_harness.run.jobs import job_count

        runner = _runner_of(self._config)
        if groups := groups_to_judge(tests, runner.past, settings.report_dir):
            runner.start_jobs(groups, job_count(settings.jobs))

    def _is_done(self, item: pytest.Item) -> bool:
        """Whether an earlier run made the verdict of a test, so that it needs no session."""
        past = _runner_of(self._config).past
        cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
        earlier = past.verdict(cell)
        if earlier is None or getattr(item, "originalname", "") != "test_latency":
            return earlier is not None
        untimed = earlier.status != "pass" or getattr(self._config.option, "benchmark_skip", False)
        return untimed or past.timed(cell) is not None

    def _begin_run(self, timed: int = 0, *, done: bool = False) -> None:
        """End the run with a usage error unless every provider asked for works and results can be kept.

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
            raise pytest.UsageError(f"{problem.reason}. Mend: {problem.mend}\nNothing was run.")
        for name in () if done else _settings_of(self._config).provider:
            found = _runner_of(self._config).probe(name)
            if not found.usable:
                raise pytest.UsageError(refusal(found))
        try:
            if _settings_of(self._config).gate_reference is not None:
                if self._config.pluginmanager.hasplugin("dsession"):
                    raise UsageError("--gate-reference times each cell, which -n (xdist) can't: run without -n")
                why = _runner_of(self._config).check_reference(timed)
                if why is not None:
                    self._say(f"beside the pinned reference: {why}")
            self._begun()
        except HarnessError as error:
            raise pytest.UsageError(f"{error}\nNothing was run.") from None

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

            settings = _settings_of(self._config)
            command = shlex.join(["pytest", *self._config.invocation_params.args])
            run = gather(command, settings.seed, _runner_of(self._config).devices)
            run = replace(run, selection=selection(self._config, settings), planned=self._planned)
            if _shard in self._config.stash:
                run = replace(run, shards=(self._config.stash[_shard],))
            self._account = Account(settings.report_dir, run)
            self._add_automation(settings)
        return self._account

    def _add_automation(self, settings: Settings) -> None:
        """Register what writes for machines, now that there is something to write."""
        from onnx_harness.run.automation import Automation, on_github

        if settings.sarif is not None or on_github():
            automation = Automation(lambda: self._account, settings.sarif)
            self._config.pluginmanager.register(automation, "onnx-harness-automation")


@cache
def _suite_without_benchmark() -> ModuleType:
    """Return ``onnx_harness.suite`` with a ``benchmark`` of its own, which says why there is no other."""
    whole = importlib.import_module("onnx_harness.suite")
    copy = ModuleType(whole.__name__, whole.__doc__)

    @pytest.fixture
    def benchmark() -> None:
        pytest.skip("latency isn't measured: pytest-benchmark is switched off or not installed")

    vars(copy).update(test_accuracy=whole.test_accuracy, test_latency=whole.test_latency, benchmark=benchmark)
    return copy


@cache
def _accuracy_alone() -> ModuleType:
    """``onnx_harness.suite`` without the rest: pytest looks at all that a module holds, two thousand times here."""
    whole = importlib.import_module("onnx_harness.suite")
    alone = ModuleType(whole.__name__, whole.__doc__)
    vars(alone).update(test_accuracy=whole.test_accuracy)
    return alone


def _dest(name: str) -> str:
    return f"onnx_{_key(name)}"


def _key(name: str) -> str:
    return name.replace("-", "_")


def _arguments(config: pytest.Config) -> list[Path]:
    """The paths on the command line, as pytest makes them absolute: links stay what they were called."""
    return [
        Path(os.path.abspath(config.invocation_params.dir / argument.split("::")[0]))  # noqa: PTH100
        for argument in config.args
    ]


def _named_folders(config: pytest.Config) -> list[Path]:
    """Return the folders on the command line whose models are meant: a provider or a variant was asked for.

    Where ``onnx_model_paths`` has a say about a folder, that decides.
    """
    if config.args_source is not pytest.Config.ArgsSource.ARGS or not _asked_for_cells(config):
        return []
    listed = config.getini("onnx_model_paths")
    named = [path for path in _arguments(config) if path.is_dir()]
    return [path for path in named if not any(folder.is_relative_to(path) for folder in listed)]


def _folder_hint(config: pytest.Config) -> str:
    """Return what to do about models in folders that were named, and that weren't collected; empty without any."""
    from onnx_harness.cell import matrix

    folders = [path for path in _arguments(config) if path.is_dir()]
    found = {folder: matrix.models_below(folder) for folder in folders}
    said = [
        f"{len(models)} model{'s' if len(models) > 1 else ''} in {os.path.relpath(folder)} "
        f"({os.path.relpath(models[0])}{' …' if len(models) > 1 else ''})"
        for folder, models in found.items()
        if models
    ]
    if not said:
        return ""
    return (
        f"{'; '.join(said)}: not collected. Name them, add --provider or --variant to have a folder's models "
        "collected, or set onnx_model_paths in pytest's configuration."
    )


def _asked_for_cells(config: pytest.Config) -> bool:
    """Whether the command line itself names a provider or a variant."""
    return any(config.getoption(_dest(name)) for name in ("provider", "variant", "backend-suite"))


def _only_models(config: pytest.Config) -> bool:
    """Whether the command line names models, folders of them or the suite of ONNX's operators, and nothing else."""
    folders = config.getini("onnx_model_paths")
    paths = _arguments(config)
    return bool(paths or config.stash[_selections]) and all(
        is_model_file(path) or any(path.is_relative_to(folder) for folder in folders) for path in paths
    )


def _runner_of(config: pytest.Config) -> Runner:
    from onnx_harness.run.runner import Runner  # numpy and the rest of the rooms: not for a mere collection

    if _runner not in config.stash:
        config.stash[_runner] = Runner(_settings_of(config))
    return config.stash[_runner]
