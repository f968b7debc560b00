"""What to ship, failures by cause, the heat map and the plots."""

from typing import Any

import pytest

from onnx_harness.report import causes, matrix, scatter, shipping
from onnx_harness.report.figures import ModelHeader
from onnx_harness.results.cells import (
    AccuracyRecord,
    CellResult,
    GraphChange,
    PlacementRecord,
    Stage,
    Status,
)
from tests.unit.results_examples import RUN, cell, latency, output, sensitivity

ORIGINAL = cell("original", latency=latency(20.0, 1.0, None))
QUICK = cell("simplify", latency=latency(10.0, 2.0, (1.9, 2.1)))
QUICKER = cell("fp16", latency=latency(5.0, 4.0, (3.9, 4.1)))


def choice(*cells: CellResult, **headers: ModelHeader) -> shipping.Choice:
    [chosen] = shipping.choices(RUN, cells, headers)
    return chosen


def test_the_fastest_that_passes_is_shipped_with_its_command() -> None:
    chosen = choice(ORIGINAL, QUICK, QUICKER, net=ModelHeader(path="models/net.model.toml"))
    assert chosen.fastest is QUICKER
    assert chosen.why == "the fastest of 3 that pass"
    assert (
        chosen.command
        == "onnx-harness transform models/net.model.toml --variant fp16 -o net-fp16.onnx"
    )


def unfit(**more: Any) -> CellResult:
    return cell("fp16", latency=latency(5.0, 4.0, (3.9, 4.1)), **more)


@pytest.mark.parametrize(
    "cell",
    [
        unfit(status=Status.FAIL),
        unfit(status=Status.KNOWN_FAILURE),
        unfit(accuracy=AccuracyRecord(1, {"y": output(faithful=False)})),
        unfit(accuracy=AccuracyRecord(1, {"y": output(), "z": output(usable=False)})),
        unfit(
            placement=PlacementRecord(
                "CPUExecutionProvider", {}, {}, 1.0, precision="emulated"
            )
        ),
        cell("fp16", latency=latency(5.0, 4.0, (0.9, 9.0))),
        cell("fp16", latency=latency(5.0, 4.0, None)),
    ],
)
def test_what_fails_or_is_not_shown_to_be_faster_is_not_the_fastest(
    cell: CellResult,
) -> None:
    assert choice(ORIGINAL, QUICK, cell).fastest is QUICK


def test_without_a_gain_the_model_ships_as_it_is_and_the_smallest_is_named() -> None:
    half = cell(
        "fp16",
        latency=latency(21.0, 0.95, (0.9, 1.0)),
        graph=GraphChange(9, 9, 1000, 500, 0.1),
    )
    chosen = choice(ORIGINAL, half)
    assert (chosen.fastest, chosen.smallest, chosen.command) == (ORIGINAL, half, "")
    assert chosen.why == "no variant that passes is shown to be faster"
    untimed = choice(cell("original"), cell("simplify"))
    assert untimed.why == "speed wasn't measured"


def test_a_model_of_which_nothing_passes_comes_first_and_says_why() -> None:
    failed = cell(
        "original", "other", status=Status.FAIL, stage=Stage.SESSION, reason="it is refused"
    )
    first, _ = shipping.choices(RUN, [ORIGINAL, failed], {})
    assert first.fastest is None
    assert first.why == "original ends at session: it is refused"
    idle = choice(cell("fp16", status=Status.NOT_APPLICABLE))
    assert idle.why == "no variant is applicable"


def test_a_verdict_that_could_not_have_failed_is_shipped_with_a_caution() -> None:
    vacuous = cell(
        "original", accuracy=AccuracyRecord(1, {"y": output(vacuous="is always 0")})
    )
    assert "could not have failed: y is always 0" in choice(vacuous).caution


def test_commands_are_quoted_and_spell_options_out() -> None:
    run_command = "pytest net.onnx --variant 'fp16(max_finite_val=1000.0)'"
    spelt = cell("fp16.max_finite_val_1000", "net")
    command = shipping.transform_command(
        spelt, {"net": ModelHeader(path="a b.onnx")}, run_command
    )
    assert command.startswith(
        "onnx-harness transform 'a b.onnx' --variant 'fp16(max_finite_val=1000.0)' -o "
    )
    assert shipping.transform_command(cell("ort.basic"), {}, "pytest") == ""
    assert shipping.alone_command(cell("fp16"), RUN, {}).endswith(
        "--provider cpu --variant 'fp16()' --seed 7"
    )
    failed = cell(status=Status.FAIL, detail=("y is off", "alone: pytest x"))
    assert shipping.alone_command(failed, RUN, {}) == "pytest x"


def failed(model: str, reason: str, minimum: float = 0.5, **more: Any) -> CellResult:
    accuracy = AccuracyRecord(1, {"y": output(minimum)})
    fields = {"status": Status.FAIL, "stage": Stage.COMPARE, "accuracy": accuracy, **more}
    return cell("fp16", model, reason=reason, **fields)


def test_failures_that_differ_in_figures_and_names_have_one_cause() -> None:
    off = [
        failed(f"m{k}", f"output y{k} departs by {k}.1e-02, {k} times 'm{k}'", k / 10)
        for k in range(1, 5)
    ]
    refused = failed("m1", "ONNX Runtime refuses it", stage=Stage.SESSION)
    grouped = causes.causes([refused, *off])
    assert [len(cause.cells) for cause in grouped] == [4, 1]
    assert grouped[0].worst is off[-1]
    assert grouped[0].models == ["m4", "m3", "m2", "m1"]
    assert causes.sentence(grouped) == "of 2 causes"


def test_failures_come_before_errors_of_the_machine() -> None:
    errors = [failed(f"m{k}", "no memory", status=Status.ERROR) for k in range(9)]
    assert causes.causes([*errors, failed("m", "off")])[0].worst.model == "m"


def test_the_heat_map_has_a_place_for_every_cell() -> None:
    cells = [
        cell("original"),
        cell("simplify"),
        cell("original", "two"),
        cell(provider="cuda"),
    ]
    on_cpu, on_cuda = matrix.grids(cells)
    assert (on_cpu.rows, on_cpu.columns) == (("net", "two"), ("original", "simplify"))
    assert on_cpu.cells == ((0, 1), (2, None))
    assert on_cuda.cells == ((3,),)


def test_many_variants_of_one_model_become_rows() -> None:
    [grid] = matrix.grids([cell(f"v{number}") for number in range(12)])
    assert (grid.corner, len(grid.rows), grid.columns) == ("variant", 12, ("net",))
    assert grid.cells[11] == (11,)


def test_shades_run_from_worse_to_better() -> None:
    def level(name: str, **more: Any) -> int | None:
        return matrix.heat(cell("simplify", **more))[name].level

    speeds = [
        level("speedup", latency=latency(1.0, speedup))
        for speedup in (0.4, 0.8, 1.0, 1.3, 3.0)
    ]
    assert speeds == [0, 2, 3, 4, 6]
    errors = [
        level("error", accuracy=AccuracyRecord(1, {"y": output(e * 1e-4)}))
        for e in (10, 1, 0.1, 1e-3, 0)
    ]
    assert errors == [0, 1, 3, 6, 6]
    assert matrix.heat(cell())["size"].text == "4.6 MB"
    assert (
        matrix.heat(cell("v", sensitivity=sensitivity(28, 30)))["sensitivity"].text == "100%"
    )
    assert (
        matrix.heat(cell(accuracy=AccuracyRecord(1, {"y": output(nonfinite=3)})))[
            "error"
        ].text
        == "3 NaN/inf"
    )
    assert matrix.measures([matrix.heat(cell(accuracy=None))]) == ["size", "placement"]
    assert set(matrix.heat(cell(status=Status.NOT_APPLICABLE)).values()) == {matrix.NOTHING}


def test_the_front_is_what_nothing_else_beats_in_both() -> None:
    cells = [
        cell("slow", latency=latency(30.0), accuracy=AccuracyRecord(1, {"y": output(1e-5)})),
        cell("exact", latency=latency(20.0), accuracy=AccuracyRecord(1, {"y": output(0.0)})),
        cell("fast", latency=latency(5.0), accuracy=AccuracyRecord(1, {"y": output(5e-5)})),
        cell("untimed"),
    ]
    [plot] = scatter.scatters(cells)
    assert {point.cell.variant: point.front for point in plot.points} == {
        "slow": False,
        "exact": True,
        "fast": True,
    }
    for point in plot.points:
        assert 0 < point.x < scatter.WIDTH
        assert 0 < point.y < scatter.HEIGHT
    assert scatter.scatters(cells[:1]) == []


@pytest.mark.parametrize(
    ("times", "ticks"),
    [
        ((0.18, 0.36), [(60, "0.180 ms"), (260, "0.360 ms")]),
        ((0.18, 0.25), [(99, "0.180 ms to 0.250 ms")]),
        ((0.0180, 0.0189), [(65, "0.0180 ms to 0.0189 ms")]),
        ((0.18, 0.18), [(60, "0.180 ms")]),
    ],
)
def test_labels_of_close_latencies_do_not_touch(
    times: tuple[float, float], ticks: list[tuple[float, str]]
) -> None:
    def across(value: float) -> float:
        return 60 + 200 * (value / times[0] - 1)

    found = [(round(tick.at), tick.text) for tick in scatter._ends(times, across)]
    assert found == ticks
