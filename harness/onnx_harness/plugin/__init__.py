"""The pytest plugin: options, collection of models, and the account at the end of a run.

It collects a model only when it's named on the command line or lies under ``onnx_model_paths``, so
installing it never changes somebody else's test run. Loading it imports neither onnx nor
onnxruntime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Whoever runs plain tests pays for these, and for what they import: the other rooms come when a
# model is named.
from onnx_harness.cards import suite_options
from onnx_harness.errors import HarnessError, UsageError
from onnx_harness.names import is_model_file
from onnx_harness.plugin.benchmarking import settle_benchmark
from onnx_harness.plugin.collectors import BackendSuite, ModelModule
from onnx_harness.plugin.failures import Failures
from onnx_harness.plugin.reporter import Reporter
from onnx_harness.plugin.state import (
    ENTRY,
    MODULES,
    OWN_RESULTS,
    RESULT,
    RUNNER,
    SELECTIONS,
    SHARD,
    arguments,
    attach,
    dest,
    is_written_by_a_run,
    named_folders,
    runner_of,
    settings_of,
    settle,
)
from onnx_harness.settings import OPTIONS
from onnx_harness.settings.project import read_project

if TYPE_CHECKING:
    from onnx_harness.cards import backend_suite
    from onnx_harness.results.cells import CellResult
    from onnx_harness.run import own_tests
    from onnx_harness.run.runner import Runner

# Each is also spelled without `onnx-`, where no other plugin owns that spelling.
_OPTIONS = {option.flag: option for option in OPTIONS.values() if option.help}

_ORDERED = ("failedfirst", "newfirst")  # pytest's own options that choose the order of tests


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options under the names that are surely ours, and the ini value."""
    group = parser.getgroup("onnx-harness", "ONNX models")
    for name, option in _OPTIONS.items():
        group.addoption(f"--onnx-{name}", dest=dest(name), **option.arguments)
    group.addoption(
        f"--{suite_options.NAME}",
        action="append",
        nargs="?",
        const=suite_options.ALL,
        metavar="KIND",
        help="the official cases of ONNX's operators: "
        f"{', '.join(suite_options.KINDS)}, all (the default) or KIND/CASE; repeatable",
    )
    group.addoption(
        "--onnx-update",
        action="store_true",
        help="write the golden outputs of onnx_snapshot anew",
    )
    parser.addini(
        "onnx_model_paths",
        "folders whose .onnx files and model cards are collected",
        type="paths",
    )


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Add the short spellings that were typed.

    Plugins and conftests have had their chance to own them.

    One that wasn't typed is left free: a conftest further down, loaded during collection, may still
    declare it.
    """
    written = {argument.partition("=")[0] for argument in args}
    # Not by trying: which error pytest raises, and whether it's now or when the line is parsed, is
    # up to its version.
    spellings = {
        name
        for group in (*parser._groups, parser._anonymous)
        for option in group.options
        for name in option.names()
    }
    for name, option in _OPTIONS.items():
        short = f"--{name}"
        if short not in spellings and written & {short, "-h", "--help"}:
            group = parser.getgroup("onnx-harness")
            group.addoption(
                short, dest=dest(name), **{**option.arguments, "help": f"--onnx-{name}"}
            )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle what was asked for; a misspelling is a usage error before anything is collected."""
    options = {option.key: config.getoption(dest(name)) for name, option in _OPTIONS.items()}
    options_by_name = {}
    for name in ("provider", "variant"):
        if options[name]:
            options_by_name[name] = tuple(options[name])
    options |= options_by_name
    try:
        config.stash[SELECTIONS] = _chosen_cases(config)
        project = read_project(config.rootpath)
        said = []
        for value in options.values():
            if value is not None and value is not False and value != ():
                said.append(value)
        if project or said:
            settle(config, project, options)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[MODULES] = {}
    config.addinivalue_line(
        "markers",
        (
            "onnx(variant=…, provider=…): what onnx_verify and onnx_snapshot judge; lists make a "
            "test "
            "for each"
        ),
    )
    if config.stash[SELECTIONS] and config.args_source is not pytest.Config.ArgsSource.ARGS:
        # The suite alone was asked for, and not this project's own tests.
        config.args, config.args_source = [], pytest.Config.ArgsSource.ARGS
        # The account counts what is skipped or known, by the thousand.
        config.option.reportchars = "fE"
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(config), "onnx-harness-reporter")
        config.pluginmanager.register(Failures(), "onnx-harness-failures")
    settle_benchmark(config)


def _chosen_cases(config: pytest.Config) -> Sequence[backend_suite.Selection]:
    words = config.getoption(dest("backend-suite"))
    if not words:
        return ()
    from onnx_harness.cards import backend_suite

    return backend_suite.choose(words)


@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def pytest_arrange_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is another shard's.

    With ``--jobs``, take accuracy first, and latency when nothing else runs.
    """
    places = []
    for place, item in enumerate(items):
        if isinstance(item.parent, ModelModule):
            places.append(place)
    if not places:
        return
    settings = settings_of(config)
    parallel = settings.jobs != 1 or bool(settings.cluster)
    if settings.shard is None and not parallel:
        return
    from onnx_harness.run import arrange

    if parallel and not any(config.getoption(option, False) for option in _ORDERED):
        ordered = arrange.in_order_of_jobs(
            [items[place] for place in places], settings.report_dir
        )
        for place, item in zip(places, ordered, strict=True):
            items[place] = item
    if settings.shard is not None:
        from onnx_harness.run.sharding import own_shard

        tests = [items[place] for place in places]
        try:
            shard = own_shard(tests, settings, keep=not config.getoption("collectonly"))
        except (HarnessError, OSError) as error:
            raise pytest.UsageError(f"{error}") from error
        others = set(shard.left_out)
        config.stash[SHARD] = shard
        config.hook.pytest_deselected(items=list(shard.left_out))
        items[:] = [item for item in items if item not in others]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker process."""
    runner = config.stash.get(RUNNER, None)
    if runner is not None:
        runner.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over the models that an earlier run wrote for its failing cells, unless named."""
    return True if is_written_by_a_run(collection_path, config) else None


def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    """Make a module of a model that was named, or that lies under ``onnx_model_paths``."""
    if not is_model_file(file_path):
        return None
    from onnx_harness.cell import matrix

    # pytest itself forgets an argument that lies in the folder of another one.
    named = parent.session.isinitpath(file_path) or file_path in arguments(parent.config)
    folders = [*parent.config.getini("onnx_model_paths"), *named_folders(parent.config)]
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
    named = matrix.with_distinct_names(
        cards, [*config.getini("onnx_model_paths"), *named_folders(config)]
    )
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
    if (
        isinstance(collector, pytest.Session)
        and report.passed
        and collector.config.stash[SELECTIONS]
    ):
        # It needn't be there: node ids begin with it.
        folder = collector.config.rootpath / suite_options.NAME
        report.result.append(BackendSuite.from_parent(collector, path=folder))
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the suite over the module's cells.

    A test of one's own runs over what its marker lists.
    """
    marker = metafunc.definition.get_closest_marker("onnx")
    if marker is not None and "_onnx_choice" in metafunc.fixturenames:
        from onnx_harness.run.own_tests import choices_of

        try:
            choices = choices_of(marker)
        except UsageError as error:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
        ids = (
            ["-".join(choice.values()) for choice in choices]
            if len(choices) > 1
            else [pytest.HIDDEN_PARAM]
        )
        metafunc.parametrize("_onnx_choice", choices, ids=ids, indirect=True)
    module = metafunc.definition.parent
    if isinstance(module, ModelModule) and "onnx_cell" in metafunc.fixturenames:
        ids = [f"{cell.variant.id}-{cell.provider}" for cell in module.cells]
        metafunc.parametrize("onnx_cell", module.cells, ids=ids)


@pytest.fixture
def _onnx_choice(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Return the variant and the provider of the test's marker.

    It's one of several where the marker names several.
    """
    return getattr(request, "param", {})


@pytest.fixture
def _onnx_own_test(
    request: pytest.FixtureRequest, _onnx_runner: Runner, _onnx_choice: Mapping[str, str]
) -> own_tests.OwnTest:
    from onnx_harness.run.own_tests import OwnTest

    results = request.node.stash.setdefault(OWN_RESULTS, [])
    return OwnTest(request.node, _onnx_runner, results.append, _onnx_choice)


@pytest.fixture
def onnx_verify(_onnx_own_test: own_tests.OwnTest) -> own_tests.OnnxVerify:
    """Judge a model by its variant=…, candidate=… or reference=….

    It's judged on inputs=…, within rtol=… and atol=….
    """
    from onnx_harness.run.own_tests import OnnxVerify

    return OnnxVerify(_onnx_own_test)


@pytest.fixture
def onnx_snapshot(
    _onnx_own_test: own_tests.OwnTest, pytestconfig: pytest.Config
) -> own_tests.OnnxSnapshot:
    """Compare a model's outputs, on inputs=…, with golden ones, which --onnx-update writes.

    It's called.
    """
    from onnx_harness.run.own_tests import OnnxSnapshot

    return OnnxSnapshot(_onnx_own_test, update=pytestconfig.getoption("onnx_update"))


@pytest.fixture(scope="session")
def _onnx_runner(request: pytest.FixtureRequest) -> Runner:
    """Return what judges and times cells; its worker process lives as long as the run."""
    return runner_of(request.config)


@pytest.fixture
def _onnx_record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep the verdict for the report, with the key of its file."""
    past = runner_of(request.config).past
    cell = request.node.callspec.params["onnx_cell"]

    def record(result: CellResult, *, reused: bool = False) -> None:
        from onnx_harness.report.junit import properties

        request.node.stash[RESULT] = result
        request.node.user_properties.extend(properties(result))
        request.node.stash[ENTRY] = past.entry(cell, reused=reused)

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
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the verdict to the report: that way it also reaches the controller of xdist."""
    report = yield
    runner = item.config.stash.get(RUNNER, None)
    if runner is not None and runner.warnings:
        vars(report).update(onnx_warnings=list(runner.warnings))
    if report.when == "call" and RESULT in item.stash:
        from onnx_harness.results.codec import line_of

        cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
        attach(report, cell.card, line_of(item.stash[RESULT]), item.stash[ENTRY])
    if report.when == "call" and (results := item.stash.get(OWN_RESULTS, None)):
        from onnx_harness.results.codec import line_of

        vars(report).update(onnx_own_results=[line_of(result) for result in results])
    return report
