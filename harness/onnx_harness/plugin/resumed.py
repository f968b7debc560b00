"""Report a test whose verdict an earlier run made, without the fixtures and phases of a test.

Of ten thousand such tests, pytest's own protocol takes most of the time. What is reported is what
the test itself would report: the same phases, outcomes, properties and verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest
from _pytest.reports import TestReport

from onnx_harness.plugin.collectors import ModelModule
from onnx_harness.plugin.state import ENTRY, RESULT, attach

if TYPE_CHECKING:
    from onnx_harness.results.cells import CellResult
    from onnx_harness.run.past import Past

Phase = Literal["setup", "call", "teardown"]

_HOOKS = (
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_runtest_call",
    "pytest_runtest_teardown",
    "pytest_runtest_makereport",
    "pytest_pyfunc_call",
    "pytest_fixture_setup",
)
"""The hooks that a test without phases doesn't call."""

_KNOWN = ("_pytest", "pytest_benchmark", "_hypothesis_pytestplugin", "anyio", "onnx_harness")
"""Packages whose implementations of those hooks do nothing to a test that isn't run."""

_SHOWN = ("setuponly", "setupshow", "setupplan", "trace", "benchmark_only")
"""Options that want to see the phases, or that leave tests out in one of them."""

_FIXTURES = frozenset(
    {"request", "onnx_cell", "_onnx_runner", "_onnx_record", "_onnx_progress", "benchmark"}
)


class Resumed:
    """Takes over the tests whose verdict is there; the others run as always."""

    def __init__(
        self,
        past: Past,
        is_done: Callable[[pytest.Item], bool],
        keep: Callable[[str, CellResult], None],
    ) -> None:
        """Begin with no test.

        Args:
            past: the earlier verdicts.
            is_done: whether the verdict of a test is there.
            keep: takes the verdict of a test, by its node id, before its report comes.
        """
        self._past = past
        self._is_done = is_done
        self._keep = keep
        self._suits: dict[object, bool] = {}
        self._places: dict[object, tuple[str, int | None]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Report a test that is done, in place of its protocol."""
        if not self._may_take(item) or not self._is_done(item):
            return None
        cell = item.callspec.params["onnx_cell"]  # type: ignore[attr-defined]
        result = self._result(item, cell)
        if result is None:  # of a latency that isn't taken, which is for the test to say
            return None
        hooks = item.ihook
        self._locate(item)
        hooks.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        hooks.pytest_runtest_logreport(report=_passed(item, "setup"))
        hooks.pytest_runtest_logreport(report=self._called(item, cell, result))
        hooks.pytest_runtest_logreport(report=_torn_down(item, nextitem))
        hooks.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _may_take(self, item: pytest.Item) -> bool:
        """Return whether nobody else has a part in the test: no fixture, marker or plugin."""
        if not isinstance(item.parent, ModelModule):
            return False
        if not _FIXTURES.issuperset(item.fixturenames):  # type: ignore[attr-defined]
            return False
        if next(item.iter_markers(), None) is not None:
            return False
        hooks = item.ihook
        if hooks not in self._suits:
            self._suits[hooks] = _are_known(hooks)
        return self._suits[hooks]

    def _locate(self, item: pytest.Item) -> None:
        """Put a test where the others of its function are, which pytest looks up for each."""
        function = item.obj  # type: ignore[attr-defined]
        if function not in self._places:
            file, line, _ = item.location
            self._places[function] = file, line
        # The place is a cached property: this is where its value is kept.
        vars(item)["location"] = (*self._places[function], item.getmodpath())  # type: ignore[attr-defined]

    def _result(self, item: pytest.Item, cell: Any) -> CellResult | None:
        if getattr(item, "originalname", "") != "test_latency":
            return self._past.verdict(cell)
        if item.config.getoption("benchmark_skip", False):
            return None
        return self._past.timed(cell)

    def _called(self, item: pytest.Item, cell: Any, result: CellResult) -> TestReport:
        """Return the report of the test itself: what it concludes from its verdict."""
        from onnx_harness.report.junit import properties
        from onnx_harness.suite import conclude

        entry = self._past.entry(cell, reused=True)
        item.user_properties.extend(properties(result))
        if result.status == "pass":
            call = _passed(item, "call")
            attach(call, cell.card, self._past.line(cell), entry)
        else:
            item.stash[RESULT] = result
            item.stash[ENTRY] = entry
            outcome = pytest.CallInfo.from_call(lambda: conclude(result), "call")
            call = item.ihook.pytest_runtest_makereport(item=item, call=outcome)
        self._keep(item.nodeid, result)
        return call


def _passed(item: pytest.Item, when: Phase) -> TestReport:
    """Return the report of a phase in which nothing had to be done."""
    now = time.time()
    return TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="passed",
        longrepr=None,
        when=when,
        start=now,
        stop=now,
        user_properties=item.user_properties,
    )


def _torn_down(item: pytest.Item, nextitem: pytest.Item | None) -> TestReport:
    """End the fixtures of tests before this one that the next one has no part in."""
    tear_down = item.session._setupstate.teardown_exact
    outcome = pytest.CallInfo.from_call(lambda: tear_down(nextitem), "teardown")
    if outcome.excinfo is None:
        return _passed(item, "teardown")
    report: TestReport = item.ihook.pytest_runtest_makereport(item=item, call=outcome)
    return report


def _are_known(hooks: Any) -> bool:
    """Return whether no other plugin, and no conftest, has a part in a test's phases."""
    for name in _HOOKS:
        for implementation in getattr(hooks, name).get_hookimpls():
            module = getattr(implementation.function, "__module__", "")
            if module.partition(".")[0] not in _KNOWN:
                return False
    return True


def wants_phases(config: pytest.Config) -> bool:
    """Return whether an option asks for the phases of each test."""
    return any(config.getoption(option, False) for option in _SHOWN)
