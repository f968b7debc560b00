"""A diagnosis in the reports: with the cell, and as what groups failures of one cause."""

from onnx_harness.report import diagnosed
from onnx_harness.report import html as html_page
from onnx_harness.report.causes import causes
from onnx_harness.results.cells import CellResult, Stage, Status
from onnx_harness.results.diagnosis import Cause, Diagnosis, Mend, NodeCause, Smallest
from tests.unit.results_examples import RUN, cell
from tests.unit.test_report import HOSTILE, Page, embedded


def diagnosis(
    op_type: str = "Exp", name: str = "/a/Exp", *, found: bool = True
) -> Diagnosis:
    node = NodeCause(name, op_type, 0.031, 1.2e-6)
    cause = Cause(transform="fp16", rules=(name,), node=node, input_set="large")
    return Diagnosis(
        f"fp16 makes node {name} overflow",
        cause,
        smallest=Smallest("reports/repro/net", 1, 17),
        mend=Mend("fp16(op_block_list=[Exp])", verified=True),
        evidence=("fp16 alone fails",),
        found=found,
    )


def failed(model: str, reason: str, record: Diagnosis | None) -> CellResult:
    return cell(
        "fp16",
        model,
        status=Status.FAIL,
        stage=Stage.COMPARE,
        reason=reason,
        diagnosis=record,
    )


def test_the_node_and_the_mend_come_first() -> None:
    shown = dict(diagnosed.facts(diagnosis()))
    assert list(shown)[:2] == ["node", "mend"]
    assert shown["node"] == "/a/Exp (Exp): own error 3.1e-02, inherited 1.2e-06"
    assert shown["mend"] == "variant fp16(op_block_list=[Exp]) passes"
    assert shown["smallest model that fails"] == "reports/repro/net, 1 node"
    assert "optimization level" not in shown


def test_what_was_not_tried_or_is_not_finite_is_said() -> None:
    assert diagnosed.mend(Mend("optimize", verified=False)).endswith(
        "should pass; it wasn't tried"
    )
    assert "own error not finite" in diagnosed.node(NodeCause("n", "Exp", None, 0.0))


def test_many_parts_are_counted() -> None:
    record = Diagnosis("so", Cause(passes=tuple(f"pass_{number}" for number in range(12))))
    assert dict(diagnosed.facts(record))["passes"].endswith("pass_7 and 4 more")


def test_failures_of_one_diagnosis_are_one_cause_whatever_they_say() -> None:
    cells = [
        failed("a", "output y departs", diagnosis(name="/a/Exp")),
        failed("b", "3 NaN", diagnosis(name="/b/Exp")),
        failed("c", "output y departs", diagnosis("Pow")),
        failed("d", "output y departs", None),
        failed("e", "output y departs", diagnosis(found=False)),
    ]
    grouped = [{each.model for each in cause.cells} for cause in causes(cells)]
    assert sorted(map(sorted, grouped)) == [["a", "b"], ["c"], ["d", "e"]]


def test_the_page_shows_the_diagnosis_in_its_cause_and_in_its_cell() -> None:
    page = html_page.page(RUN, [failed("a", "it is off", diagnosis())], {})
    assert "fp16 makes node /a/Exp overflow" in page
    assert "variant fp16(op_block_list=[Exp]) passes" in page
    [shown] = embedded(page)["cells"]
    assert shown["diagnosis"]["sentence"] == "fp16 makes node /a/Exp overflow"
    assert shown["parts"][0][0] == "node"


def test_hostile_names_in_a_diagnosis_stay_text() -> None:
    record = Diagnosis(
        HOSTILE, Cause(node=NodeCause(HOSTILE, HOSTILE, 1.0, 0.0)), found=True
    )
    page = Page(html_page.page(RUN, [failed("a", HOSTILE, record)], {}))
    assert page.open == []
    assert "img" not in page.tags
