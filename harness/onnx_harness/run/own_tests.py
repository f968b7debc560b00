"""The fixtures for tests of one's own.

A question about a model, answered and kept in the run's report.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnx_harness.cell.matrix import named_card
from onnx_harness.errors import HarnessError, UsageError, did_you_mean
from onnx_harness.names import cell_id, slug
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.run.selection import from_here
from onnx_harness.run.verification import (
    CHOICES,
    Question,
    Verdict,
    answer,
    snapshot,
    verdict_of,
)
from onnx_harness.settings import Settings
from onnx_harness.settings.project import combine

if TYPE_CHECKING:
    from onnx_harness.run.files import InputsLike, ModelLike
    from onnx_harness.run.runner import Runner
    from onnx_harness.run.verification import Forward

MARK_ARGUMENTS = ("variant", "provider")
SNAPSHOTS = "__onnx_snapshots__"


class OwnTest:
    """The needs of a test of one's own: the run's runner, and where answers go.

    Args:
        node: the test.
        runner: of the run.
        record: keeps a result for the report.
        defaults: ``variant`` and ``provider`` of the test's marker, where it has one.
    """

    def __init__(
        self,
        node: pytest.Item,
        runner: Runner,
        record: Callable[[CellResult], None],
        defaults: Mapping[str, str],
    ) -> None:
        self.node = node
        self.defaults = {"provider": runner.settings.provider[0], **defaults}
        self._runner = runner
        self._record = record
        self._ids: dict[str, int] = {}

    def ask(
        self, judge: Callable[[Runner], CellResult], overrides: Mapping[str, Any]
    ) -> Verdict:
        """Judge, keep the result, and turn it into pytest's outcome."""
        __tracebackhide__ = True
        problem = None
        try:
            result = judge(
                self._runner.apart(settings_with(self._runner.settings, overrides), None)
            )
        except HarnessError as error:
            problem = str(error)
        if problem is not None:  # outside of the handler, or pytest tells of both
            pytest.fail(problem, pytrace=False)
        alone = f"alone: pytest {shlex.quote(from_here(self.node))}"
        if result.status in (Status.FAIL, Status.ERROR):
            result = replace(result, detail=(*result.detail, alone))
        result = self._with_own_id(result)
        self._record(result)
        if result.status is Status.NOT_APPLICABLE:
            pytest.skip(result.reason or "not applicable")
        if result.status is not Status.PASS:
            pytest.fail(verdict_of(result).report(), pytrace=False)
        return verdict_of(result)

    def name_of(self, model: ModelLike) -> str:
        """Return the model's name in reports.

        With the test's, since each test may feed it otherwise.
        """
        stem = named_card(Path(model)).name if isinstance(model, str | Path) else "model"
        return f"{stem}.{slug(self.node.name)}"

    def _with_own_id(self, result: CellResult) -> CellResult:
        """Return the result under an id that no earlier question of this test has."""
        count = self._ids[result.id] = self._ids.get(result.id, 0) + 1
        if count == 1:
            return result
        model = f"{result.model}.{count}"
        return replace(
            result, model=model, id=cell_id(model, result.variant, result.provider)
        )


class OnnxVerify:
    """``onnx_verify``: judge a variant of a model, or a model and a candidate by one another."""

    def __init__(self, test: OwnTest) -> None:
        self._test = test

    def __call__(
        self,
        model: ModelLike,
        *,
        variant: str | None = None,
        candidate: ModelLike | Forward | None = None,
        reference: ModelLike | Forward | None = None,
        provider: str | None = None,
        inputs: InputsLike | None = None,
        **settings: Any,
    ) -> Verdict:
        """Judge as :func:`onnx_harness.verify` does, and record the verdict.

        The test fails where it isn't a pass.

        Args:
            model: the untouched one: a ``.onnx``, a card, or a ModelProto.
            variant: a chain of steps; None takes the marker's, else ``simplify``.
            candidate: what should compute the same: another model, or a callable of arrays.
            reference: what is right, where the model itself is to be judged.
            provider: None takes the marker's, else the first of ``--provider``.
            inputs: used instead of generated ones.
            settings: ``rtol`` and ``atol`` (both), ``input_sets``, ``seed`` and others of
                ``verify``.

        Returns:
            The verdict, which is a pass.
        """
        __tracebackhide__ = True
        test = self._test
        chosen = variant or test.defaults.get("variant", "simplify")
        where = provider or test.defaults["provider"]

        def judge(runner: Runner) -> CellResult:
            __tracebackhide__ = True
            question = Question(
                model, chosen, candidate, reference, where, inputs, name=test.name_of(model)
            )
            return answer(question, runner)

        return test.ask(judge, settings)


class OnnxSnapshot:
    """``onnx_snapshot``: compare a model's outputs with golden ones; ``--onnx-update`` writes them.

    They lie next to the test's file, in ONNX's own layout:
    ``__onnx_snapshots__/test_file/test_name/test_data_set_0/{input_0.pb, output_0.pb}``.
    """

    def __init__(self, test: OwnTest, *, update: bool) -> None:
        self._test = test
        self._update = update

    def __call__(
        self,
        model: ModelLike,
        *,
        provider: str | None = None,
        inputs: InputsLike | None = None,
        name: str = "",
        **settings: Any,
    ) -> Verdict:
        """Compare outputs with golden ones.

        The test fails where one departs by more than the model's own noise.

        Args:
            model: a ``.onnx``, a card, or a ModelProto.
            provider: where it runs; None takes the marker's, else the first of ``--provider``.
            inputs: what golden outputs are made of by ``--onnx-update``; None: generated ones.
            name: tells several snapshots of one test apart.
            settings: as in ``onnx_verify``.
        """
        __tracebackhide__ = True
        test = self._test
        file = test.node.path
        folder = file.parent / SNAPSHOTS / file.stem / slug(test.node.name)
        folder = folder / slug(name) if name else folder
        where = provider or test.defaults["provider"]

        def judge(runner: Runner) -> CellResult:
            question = Question(
                model, provider=where, inputs=inputs, name=test.name_of(model)
            )
            return snapshot(question, runner, folder, update=self._update)

        return test.ask(judge, settings)


def settings_with(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Return the run's settings with those of a call.

    Raises:
        UsageError: one is unknown, or a value is out of its range.
    """
    unknown = sorted(overrides.keys() - CHOICES)
    if unknown:
        raise UsageError(
            f"there is no setting '{unknown[0]}' here. {did_you_mean(unknown[0], CHOICES)}"
        )
    if not overrides:
        return settings
    base = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return combine(base, overrides)


def choices_of(marker: pytest.Mark) -> list[dict[str, str]]:
    """Return what ``@pytest.mark.onnx(variant=…, provider=…)`` asks for.

    One choice, or one for each of several.

    Raises:
        UsageError: an argument is unknown, or isn't a string or a list of strings.
    """
    if marker.args:
        raise UsageError(
            "@pytest.mark.onnx takes arguments by name alone: variant=…, provider=…"
        )
    choices: list[dict[str, str]] = [{}]
    for key, value in marker.kwargs.items():
        if key not in MARK_ARGUMENTS:
            raise UsageError(
                f"@pytest.mark.onnx has no argument '{key}'. {did_you_mean(key, MARK_ARGUMENTS)}"
            )
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values or not all(isinstance(item, str) for item in values):
            raise UsageError(
                f"@pytest.mark.onnx({key}=…) takes a string or a list of strings, and not {value!r}"
            )
        choices = [{**choice, key: item} for choice in choices for item in values]
    return choices
