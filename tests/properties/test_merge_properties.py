"""Merging results: a set union by cell id, whatever the order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from onnx_harness.report.merge import merge
from onnx_harness.results.cells import CellResult, Status
from onnx_harness.results.store import Results
from tests.unit.results_examples import RUN, cell


def _cell(number: int, status: Status, reason: str) -> CellResult:
    return cell(f"v{number}", status=status, reason=reason or None)


CELLS = st.builds(
    _cell, st.integers(0, 5), st.sampled_from(Status), st.sampled_from(["", "a", "b"])
)
RUNS = st.builds(
    lambda started, name, seed, cpu: replace(
        RUN, started=started, id=name, seed=seed, host=replace(RUN.host, cpu=cpu)
    ),
    st.sampled_from(["2026-01-02T03:04:05+00:00", "2026-02-02T03:04:05+00:00"]),
    st.sampled_from(["x", "y"]),
    st.integers(0, 2),
    st.sampled_from(["cpu A", "cpu B"]),
)
PARTS = st.builds(
    lambda run, cells: Results(run, tuple({each.id: each for each in cells}.values())),
    RUNS,
    st.lists(CELLS),
)


@given(PARTS, PARTS, PARTS)
def test_order_and_grouping_make_no_difference(a: Results, b: Results, c: Results) -> None:
    together = merge([a, b, c])
    assert merge([c, a, b]) == together
    assert merge([merge([a, b]), c]) == together
    assert merge([a, merge([b, c])]) == together


@given(PARTS, PARTS)
def test_a_part_that_comes_twice_changes_nothing(a: Results, b: Results) -> None:
    assert merge([a, b, a]) == merge([a, b])
    assert merge([merge([a, b])]) == merge([a, b])


@given(PARTS, PARTS)
def test_every_cell_is_there_and_no_failure_is_hidden_by_a_pass(
    a: Results, b: Results
) -> None:
    cells = {each.id: replace(each, machine=None) for each in merge([a, b]).cells}
    assert set(cells) == {each.id for part in (a, b) for each in part.cells}
    for each in (*a.cells, *b.cells):
        assert cells[each.id] == each or cells[each.id] in (*a.cells, *b.cells)
        if each.status is Status.FAIL:
            assert cells[each.id].status is Status.FAIL


@given(PARTS, PARTS)
def test_each_cell_keeps_the_processor_that_computed_it(a: Results, b: Results) -> None:
    """Levels are accepted by processor: the head of the merger is that of one part alone."""
    merged = merge([a, b])
    processors: dict[str, set[str]] = {}
    for part in (a, b):
        for each in part.cells:
            processors.setdefault(each.id, set()).add(each.processor(part.run.host))
    for each in merged.cells:
        assert each.processor(merged.run.host) in processors[each.id]
