"""The table, the summary and the page: what a person sees, and what a hostile model can't make them
see.
"""

import base64
import gzip
import html.parser
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np
import pytest

from onnx_harness.accuracy.explain import MOST_L2
from onnx_harness.errors import ResultsError
from onnx_harness.report import comparison, escape, figures, simulated, summary, table
from onnx_harness.report import html as html_page
from onnx_harness.report.table import Line, ModelHeader
from onnx_harness.report.terms import TERMS
from onnx_harness.report.write import write_reports
from onnx_harness.results.cells import (
    NOT_SIMULATED,
    AccuracyRecord,
    CellResult,
    Departure,
    ErrorSketch,
    GraphChange,
    PlacementRecord,
    Stage,
    Status,
    Symptom,
)
from onnx_harness.results.codec import encode
from onnx_harness.results.run import HostInfo
from onnx_harness.results.store import Results
from onnx_harness.results.timings import LatencyRecord
from tests.unit.results_examples import RUN, cell, full_latency, latency, output, sensitivity

DETECTOR = ModelHeader("Apache-2.0", 4_700_000, 12)
UNCHANGED = GraphChange(672, 672, 4_700_000, 4_700_000, 0.0)
WORST = AccuracyRecord(4, {"good": output(1e-6), "sigmoid_0": output(0.33, rtol=1e-2)})
FAILED = cell(
    "simplify+fp16.io32",
    "detector",
    status=Status.FAIL,
    stage=Stage.COMPARE,
    accuracy=WORST,
    reason="1 of 2 outputs departs from the reference",
    detail=(
        "sigmoid_0: 6.1% of 102,400 values beyond the tolerance\nwould pass with rtol 0.33",
        "alone: pytest x",
    ),
)
CELLS = (
    cell("original", "detector", graph=UNCHANGED, latency=latency(28.4, 1.0)),
    cell("simplify", "detector", latency=latency(27.9)),
    FAILED,
    cell(
        "fp16",
        "detector",
        status=Status.KNOWN_FAILURE,
        stage=Stage.SESSION,
        reason="lib 1.0 breaks it",
        accuracy=None,
    ),
    cell("original", "tiny", graph=None, accuracy=AccuracyRecord(4, {"y": output(0.0)})),
    cell(
        "pass.eliminate_nop_pad",
        "tiny",
        status=Status.NOT_APPLICABLE,
        stage=Stage.TRANSFORM,
        reason="no such node",
    ),
)
HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>|`@all` [a](http://x) "
    "\x1b[31m\u202e\n# H\ud800"
)


def shown(
    cells: Sequence[CellResult], width: int = 120, *, quiet: bool = False
) -> list[Line]:
    return list(
        table.lines(RUN, cells, width=width, models={"detector": DETECTOR}, quiet=quiet)
    )


def test_the_table_looks_as_documented() -> None:
    assert [line.text for line in shown(CELLS, 100)] == [
        (
            "detector (Apache-2.0, 4.7 MB, opset 12)                                               "
            "cpu, 2 threads"
        ),
        (
            "  original                pass   1.1e-06 of 1.0e-04  28.4 ms  baseline            672 "
            "nodes"
        ),
        (
            "  simplify                pass   1.1e-06 of 1.0e-04  27.9 ms  1.02x [1.01, 1.03]  "
            "672 -> "
            "331"
        ),
        (
            "  simplify+fp16.io32      FAIL   3.3e-01 of 1.0e-02                               "
            "672 -> "
            "331"
        ),
        "    1 of 2 outputs departs from the reference",
        "    sigmoid_0: 6.1% of 102,400 values beyond the tolerance",
        "    would pass with rtol 0.33",
        "    alone: pytest x",
        "  fp16                    known  session: lib 1.0 breaks it",
        "",
        (
            "tiny                                                                                 "
            "    "
            "        cpu"
        ),
        "  original                pass   0 of 1.0e-04",
        "  pass.eliminate_nop_pad  n/a    transform: no such node",
        "",
        "seed 7, run 20260102t030405z-0a1b2c3d",
        (
            "2 models, 6 cells on cpu: 3 pass, 1 fail, 1 known failure, 1 not applicable · "
            "reports/summary.md"
        ),
    ]


def test_the_worst_comes_first_on_request() -> None:
    worse = replace(
        FAILED,
        id="worse",
        variant="worse",
        accuracy=AccuracyRecord(4, {"y": output(9.0, rtol=1e-2)}),
    )
    cells = (*CELLS[4:], *CELLS[:4], worse)
    lines = table.lines(RUN, cells, width=100, models={}, worst_first=True)
    rows = [
        line.text.split()[0]
        for line in lines
        if line.text.startswith("  ") and line.text[2] != " "
    ]
    assert rows == [
        "worse",
        "simplify+fp16.io32",
        "fp16",
        "original",
        "simplify",
        "original",
        "pass.eliminate_nop_pad",
    ]


def test_nights_are_a_line_of_blocks_where_there_is_room() -> None:
    nights = {CELLS[1].id: "▁▂█"}
    [row] = [
        line.text
        for line in table.lines(RUN, CELLS, width=100, models={}, nights=nights)
        if "▁" in line.text
    ]
    assert row.endswith("  672 -> 331  ▁▂█")
    assert not any(
        "▁" in line.text
        for line in table.lines(RUN, CELLS, width=80, models={}, nights=nights)
    )


def test_colours_say_what_needs_a_look() -> None:
    styles = {line.text.split()[0]: line.style for line in shown(CELLS) if line.text}
    assert (styles["simplify+fp16.io32"], styles["fp16"], styles["detector"]) == (
        "red",
        "yellow",
        "bold",
    )
    assert shown(CELLS)[-1].style == "red"
    assert shown(CELLS[:2])[-1].style == "green"
    assert shown([])[-1] == Line("no cell ran · reports/summary.md", "red")


@pytest.mark.parametrize("width", range(80, 201, 8))
def test_no_row_is_wider_than_the_terminal_and_columns_stand_below_one_another(
    width: int,
) -> None:
    long = cell("simplify+fp16.io32.max_finite_val_65504", "detector", latency=latency())
    lines = [
        line.text
        for line in shown((*CELLS, long), width)
        if not line.text.startswith("    ")
    ][:-1]
    assert max(len(line) for line in lines) <= width
    rows = [line for line in lines if re.search(r" (pass|FAIL) ", line)]
    assert len({re.search(r" (pass|FAIL) ", row).start() for row in rows}) == 1  # type: ignore[union-attr]
    assert len({row.index(" of 1.0e-0") for row in rows if "1.1e-06" in row}) == 1


def test_a_narrow_terminal_gives_up_node_counts_before_the_interval() -> None:
    [row] = [line.text for line in shown(CELLS, 84) if line.text.startswith("  simplify  ")]
    assert (
        row
        == "  simplify                pass   1.1e-06 of 1.0e-04  27.9 ms  1.02x [1.01, 1.03]"
    )


def test_what_a_verdict_catches_stands_in_every_report() -> None:
    cells = (
        cell("original", sensitivity=sensitivity()),
        cell("simplify", sensitivity=sensitivity(28, 30, None)),
        cell("fp16", sensitivity=sensitivity(28, 30, 4.2e-5)),
        cell("fp16.io32"),
    )
    rows = [line.text for line in shown(cells)[1:5]]
    assert [row.partition("1.0e-04")[2].partition("  672")[0].strip() for row in rows] == [
        "catches 27/28, from 0.3%", "catches 28/28", "catches 28/28, from 0.004%", "",
    ]  # fmt: skip
    assert "catches 27/28, from 0.3%" in summary.page(RUN, cells, {})
    assert "27/28, from 0.3%" in str(embedded(html_page.page(RUN, cells, {})))


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.12, "12%"), (0.0183, "1.8%"), (0.003, "0.3%"), (1.2e-6, "0.0001%")],
)
def test_a_share_has_one_digit_below_one_percent(share: float, text: str) -> None:
    assert (
        figures.catches(cell(sensitivity=sensitivity(28, 30, share)))
        == f"catches 28/28, from {text}"
    )


def test_a_run_without_latency_has_no_empty_columns() -> None:
    [row] = [line.text for line in shown([cell("simplify")], 80) if "simplify" in line.text]
    assert row == "  simplify            pass   1.1e-06 of 1.0e-04  672 -> 331  0.98x size"


def test_a_command_to_copy_is_never_cut() -> None:
    command = "alone: pytest " + "x" * 300
    failed = cell(
        "v", status=Status.FAIL, stage=Stage.RUN, reason="it stopped", detail=(command,)
    )
    assert f"    {command}" in [line.text for line in shown([failed], 80)]


def test_an_explanation_says_nothing_twice() -> None:
    worst = "y: 1 of 2 values (50%) beyond the tolerance"
    detail = (worst, "  would pass with atol 1", "alone: x")
    repeated = cell(
        status=Status.FAIL, reason=f"faithful, but not usable: output {worst}", detail=detail
    )
    assert figures.explanation(repeated) == (repeated.reason, *detail[1:])
    assert figures.explanation(
        cell(status=Status.FAIL, reason="another", detail=detail)
    ) == (
        "another",
        *detail,
    )


def test_an_endless_explanation_keeps_its_first_lines_and_the_command() -> None:
    detail = (*(f"output {number} is off" for number in range(500)), "alone: pytest x")
    texts = [
        line.text
        for line in shown([cell("v", status=Status.FAIL, reason="all off", detail=detail)])
    ]
    assert len(texts) < 40
    assert "    all off" in texts
    assert (
        "    (478 lines left out here; all are in results.json, which --report-dir DIR writes)"
        in texts
    )
    assert "    alone: pytest x" in texts


def test_quiet_shows_failures_and_the_summary_only() -> None:
    texts = [line.text for line in shown(CELLS, quiet=True)]
    assert texts[0] == "detector on cpu"
    assert texts[1].startswith("  simplify+fp16.io32")
    assert texts[-1].startswith("2 models, 6 cells")
    assert not any("original" in text for text in texts)
    assert [line.text for line in shown(CELLS[:2], quiet=True)] == [
        "1 model, 2 cells on cpu: 2 pass · reports/summary.md"
    ]


def test_ten_thousand_cells_are_shown_as_failures_and_a_line_a_model() -> None:
    many = [cell(f"v{number}", f"net{number % 20}") for number in range(9_999)]
    lines = [line.text for line in shown([*many, FAILED])]
    assert lines[0] == (
        "10,000 cells: failures and one line a model are shown here; every cell is in results.json"
    )
    assert "  net3 on cpu: 500 pass" in lines
    assert any(line.startswith("  simplify+fp16.io32  FAIL") for line in lines)
    assert len(lines) < 40
    many_failures = [
        cell(f"v{number}", status=Status.FAIL, reason="off") for number in range(9_999)
    ]
    assert len(shown(many_failures)) < 250
    assert any(
        line.text == "and 9,939 more failures, in the reports"
        for line in shown(many_failures)
    )


def test_providers_are_told_apart() -> None:
    texts = [line.text for line in shown([cell(provider="cpu"), cell(provider="cuda")], 80)]
    assert texts[0].split() == ["net", "cpu"]
    assert texts[3].split() == ["net", "cuda"]
    assert texts[-1].startswith("1 model, 2 cells on cpu, cuda: 2 pass")


def test_a_comparison_that_could_not_have_failed_is_said_once_for_the_model() -> None:
    vacuous = AccuracyRecord(4, {"y": output(0.0, vacuous="the same for every input")})
    cells = [
        cell("a", accuracy=vacuous),
        cell("b", accuracy=vacuous),
        cell("c", notes=("runs differ",)),
    ]
    notes = [line for line in shown(cells) if "note:" in line.text]
    assert notes == [
        Line("    note: y: the same for every input (2 of 3 cells)", "yellow"),
        Line("    note: runs differ (1 of 3 cells)", "yellow"),
    ]


def test_the_worst_output_is_the_one_furthest_beyond_its_own_tolerance() -> None:
    loose, tight = output(0.5, rtol=1.0), output(1e-3, rtol=1e-4)
    assert (
        figures.worst_error(cell(accuracy=AccuracyRecord(1, {"a": loose, "b": tight})))
        == "1.0e-03 of 1.0e-04"
    )
    broken = output(None, nonfinite=12)
    assert (
        figures.worst_error(cell(accuracy=AccuracyRecord(1, {"a": broken, "b": tight})))
        == "12 nonfinite"
    )
    text = AccuracyRecord(1, {"a": output(None, max_abs=None)})
    assert figures.worst_error(cell(accuracy=text)) == ""


def test_exact_noise_and_change_are_said_of_the_output_that_departs_most() -> None:
    exact, noise, change = (output(departure=word) for word in Departure)
    assert (
        figures.departure(cell(accuracy=AccuracyRecord(1, {"a": exact, "b": exact})))
        == "exact"
    )
    assert (
        figures.departure(cell(accuracy=AccuracyRecord(1, {"a": noise, "b": exact})))
        == "noise"
    )
    worst = cell(
        "simplify", accuracy=AccuracyRecord(1, {"a": exact, "b": change, "c": noise})
    )
    assert figures.departure(worst) == "change"
    assert figures.departure(cell()) == ""
    [row] = [line.text for line in shown([worst], 80) if "simplify" in line.text]
    assert (
        row
        == "  simplify            pass   change  1.1e-06 of 1.0e-04  672 -> 331  0.98x size"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.03124, "0.0312 ms"),
        (0.9996, "1.00 ms"),
        (9.994, "9.99 ms"),
        (28.44, "28.4 ms"),
        (99.96, "100 ms"),
        (12345, "12,345 ms"),
    ],
)
def test_times_have_three_digits(value: float, expected: str) -> None:
    assert figures.milliseconds(value) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (104_600_000, "105 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes_are_decimal(number: int, expected: str) -> None:
    assert figures.size(number) == expected


def hostile_cells() -> list[CellResult]:
    bad = AccuracyRecord(1, {HOSTILE: output(None, vacuous=HOSTILE)})
    fields: dict[str, Any] = {
        "reason": HOSTILE,
        "detail": (HOSTILE, "````", HOSTILE),
        "notes": (HOSTILE,),
        "accuracy": bad,
    }
    return [
        cell(HOSTILE, HOSTILE, status=status, stage=Stage.RUN, **fields) for status in Status
    ]


def test_a_terminal_gets_no_control_character() -> None:
    lines = table.lines(
        RUN,
        hostile_cells(),
        width=100,
        models={HOSTILE: ModelHeader(HOSTILE, 1, 1)},
        where=HOSTILE,
    )
    assert all(line.text.isprintable() for line in lines)
    assert (
        escape.printable("é 語 \x1b[0m\u202e\x85\ud800") == r"é 語 \x1b[0m\u202e\x85\ud800"
    )


def test_markdown_gets_neither_markup_nor_html_nor_links() -> None:
    assert escape.markdown("a|b`c*d_e[f](http://g)<h>@i\n# j") == (
        r"a\|b\`c\*d\_e\[f\](http&#58;//g)&lt;h&gt;&#64;i\\n# j"
    )
    text = summary.page(RUN, hostile_cells(), {HOSTILE: ModelHeader(HOSTILE, 1, 1)})
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"<[^>]*>", outside)) == {
        "<details>",
        "<summary>",
        "</summary>",
        "</details>",
    }
    assert "http://" not in outside
    assert "@" not in outside
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    columns = [
        len(re.findall(r"(?<!\\)\|", line))
        for line in outside.splitlines()
        if line.startswith("|")
    ]
    assert columns == [7] * 3 + [7] * 4 + [3] * 3  # what to ship, the failures, the matrix


def test_a_block_cannot_be_left_from_inside() -> None:
    block = escape.markdown_block(("before", "`````\n</details>", "after")).split("\n")
    assert block[0] == "``````text"
    assert block.index("``````") == len(block) - 1


def test_the_summary_begins_with_the_verdict() -> None:
    text = summary.page(RUN, CELLS, {"detector": DETECTOR})
    assert text.startswith(
        "# Fail: 1 fail\n\n2 models, 6 cells on cpu: 3 pass, 1 fail, 1 known failure, 1 not "
        "applicable.\n"
    )
    reason = "1 of 2 outputs departs from the reference"
    assert f"| detector | simplify+fp16.io32 | cpu | fail | compare | {reason} |" in text
    assert "alone: pytest x" in text
    assert "session: lib 1.0 breaks it — detector-fp16-cpu" in text
    assert r"| pass · 1.1e-06 · 27.9 ms · 1.02x \[1.01, 1.03\] |" in text
    assert "seed 7" in text
    assert summary.page(RUN, CELLS[:2], {}).startswith("# Pass: 2 cells right\n")
    assert summary.page(RUN, [], {}).startswith("# Nothing was checked\n")


def test_many_variants_of_few_models_become_rows() -> None:
    text = summary.page(RUN, [cell(f"v{number}") for number in range(50)], {})
    assert "| variant | net |" in text
    assert "| v49 | pass · 1.1e-06 |" in text


def test_the_summary_of_any_run_fits_on_a_jobs_page() -> None:
    detail = tuple("x" * 20_000 for _ in range(300))
    cells = [
        cell(
            f"v{number}",
            f"net{number % 30}",
            status=Status.FAIL,
            reason="y" * 9000,
            detail=detail,
        )
        for number in range(400)
    ]
    assert len(summary.page(RUN, cells, {}).encode()) < 2**20
    many = [cell(f"v{number}", f"net{number % 30}") for number in range(10_000)]
    assert "| net7 | cpu | 334 pass |" in summary.page(RUN, many, {})


def unfolded(text: str) -> list[str]:
    """The lines of a summary that are seen at first."""
    seen, depth = [], 0
    for line in text.splitlines():
        if line.startswith("<details>"):
            depth += 1
            seen += [line] if depth == 1 else []
        elif line == "</details>":
            depth -= 1
        elif depth == 0:
            seen.append(line)
    assert depth == 0
    return seen


@pytest.mark.parametrize(
    ("models", "variants"), [(1, 6), (14, 6), (20, 6), (1, 60), (100, 50), (400, 1)]
)
def test_a_summary_shows_sixty_lines_of_any_run(models: int, variants: int) -> None:
    status = (
        Status.FAIL,
        Status.ERROR,
        Status.KNOWN_FAILURE,
        Status.NOT_APPLICABLE,
        Status.PASS,
    )
    cells = [
        cell(
            f"v{v}",
            f"net{m}",
            provider,
            status=status[(m + v) % 5],
            reason=f"because of {'x' * ((m + v) % 30)}",
        )
        for m in range(models)
        for v in range(variants)
        for provider in ("cpu", "cuda")
    ]
    text = summary.page(RUN, cells, {})
    assert len(unfolded(text)) <= summary.MOST_LINES
    assert "What to ship" in text


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br", "input"}:
            self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [
            value or "" for name, value in attrs if name in {"src", "href", "action"}
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def embedded(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    [packed] = re.findall(
        r'<script type="application/octet-stream" id="data">([A-Za-z0-9+/=]*)</script>', text
    )
    value = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert isinstance(value, dict)
    return value


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    text = html_page.page(RUN, CELLS, {"detector": DETECTOR})
    page = Page(text)
    assert page.open == []
    pages = {f"../{term.page}" for term in TERMS.values()}
    assert all(link.startswith("#") or link in pages for link in page.links)
    assert not re.search(r"https?:(?!//www.w3.org/2000/svg)|@import|url\(", text)
    assert "default-src 'none'" in html.unescape(text)


def test_the_page_shows_every_cell_the_failure_and_the_run() -> None:
    text = html_page.page(RUN, CELLS, {"detector": DETECTOR})
    page = Page(text)
    assert {f"#cell={cell.id.replace('+', '%2B')}" for cell in CELLS} <= set(page.links)
    for expected in (
        "Fail: 1 of 6 cells",
        "alone: pytest x",
        "departs from the reference",
        RUN.id,
        "1.23.2",
    ):
        assert expected in page.text
    data = embedded(text)["cells"]
    assert [each["id"] for each in data] == [cell.id for cell in CELLS]
    assert data[0]["about"] == "Apache-2.0, 4.7 MB, opset 12"
    assert data[2]["accuracy"]["outputs"]["sigmoid_0"]["minimum_tolerance"] == 0.33
    assert data[3]["reason"] == "lib 1.0 breaks it"


def test_a_hostile_name_stays_text_on_the_page() -> None:
    timed = cell(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        latency=latency(),
        accuracy=AccuracyRecord(1, {HOSTILE: output()}),
    )
    run = replace(
        RUN, command=HOSTILE, host=HostInfo(HOSTILE, 1, 1, HOSTILE, {HOSTILE: HOSTILE})
    )
    text = html_page.page(
        run,
        [*hostile_cells(), timed, replace(timed, variant="v")],
        {HOSTILE: ModelHeader(HOSTILE, 1, 1, HOSTILE)},
    )
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not any(name.startswith("on") for name in page.attributes)
    pages = {f"../{term.page}" for term in TERMS.values()}
    assert all(link.startswith("#") or link in pages for link in page.links)
    assert "<img src=x onerror=alert(2)>" in page.text
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    assert all(text.isprintable() for text in texts_in(embedded(text)))


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from (text for item in value.values() for text in texts_in(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts_in(item))


def test_the_script_writes_no_markup() -> None:
    script = "".join(html_page._asset(f"{name}.js") for name in ("report", "cell", "plots"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser",
        script,
    )


def test_a_long_explanation_is_shortened_and_its_command_is_not() -> None:
    command = "alone: pytest " + "x" * 3000
    failed = cell(
        status=Status.FAIL, reason="off", detail=(*("y" * 3000 for _ in range(200)), command)
    )
    [data] = embedded(html_page.page(RUN, [failed], {}))["cells"]
    assert len(data["detail"]) == html_page.MOST_LINES
    assert len(data["detail"][0]) == html_page.MOST_LINE
    assert data["detail"][-1] == command
    assert data["alone"] == command.removeprefix("alone: ")


def test_the_page_says_the_verdicts_own_bound() -> None:
    assert html_page.FAITHFUL_L2 == MOST_L2


def test_five_thousand_cells_stay_under_three_megabytes() -> None:
    draw = random.Random(7)

    def timed() -> LatencyRecord:
        ratios = tuple(draw.gauss(0.1, 0.02) for _ in range(16))
        return replace(
            full_latency(),
            median_ms=draw.uniform(1, 30),
            speedup=draw.uniform(0.5, 2),
            log_ratios=ratios,
        )

    def accurate() -> AccuracyRecord:
        return AccuracyRecord(
            4, {name: output(draw.random(), rel_l2=draw.random()) for name in ("y", "z")}
        )

    cells = [
        cell(
            f"variant_{k % 50}",
            f"model_{k // 50}",
            latency=timed(),
            accuracy=accurate(),
            sensitivity=sensitivity(),
        )
        for k in range(5000)
    ]
    assert len(html_page.page(RUN, cells, {}).encode()) < 3_000_000


def test_reports_are_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reports(tmp_path, RUN, CELLS, {"detector": DETECTOR})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".gitignore",
        "report.html",
        "summary.md",
    ]
    before = (tmp_path / "summary.md").read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(
        ResultsError, match=r"summary.md can't be written at .*free some space.*--report-dir"
    ):
        write_reports(tmp_path, RUN, [], {})
    assert (tmp_path / "summary.md").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".gitignore",
        "report.html",
        "summary.md",
    ]


@pytest.mark.parametrize("page", sorted({term.page for term in TERMS.values()}))
def test_every_term_links_to_a_page_that_exists(page: str) -> None:
    assert (Path(__file__).parents[2] / page).is_file()
    assert f'href="../{page}"' in html_page.page(RUN, CELLS, {})


def test_every_term_of_the_page_is_a_tooltip_and_is_explained() -> None:
    page = html_page.page(RUN, CELLS, {})
    used = re.findall(r'<a class="term" href="#term=(\w+)" title="([^"]+)"', page)
    assert used
    assert all(f'id="term={key}"' in page and len(meaning) > 20 for key, meaning in used)


def test_a_name_is_broken_behind_its_separators_alone() -> None:
    parts = Page(html_page.breakable("silero_vad__op15.v2-x")).tags
    assert (
        html_page.breakable("a_<b>")
        == '<span class="part">a_</span><span class="part">&lt;b&gt;</span>'
    )
    assert len(parts) == len(["silero_", "vad__", "op15.", "v2-", "x"])
    assert Page(html_page.breakable("silero_vad__op15.v2-x")).text == "silero_vad__op15.v2-x"


def test_the_page_says_how_a_latency_was_taken() -> None:
    [shown] = embedded(html_page.page(RUN, [cell("simplify", latency=full_latency())], {}))[
        "cells"
    ]
    said = (
        "100 runs in 16 pairs of sessions on 2 sets of inputs; with transfers 3.00 ms, 1.33x; "
        "1 of 16 pairs never settled while warming up; kept on core 1; load 0.50, 1.0% stolen, 12 "
        "involuntary switches"
    )
    assert shown["timing"] == said
    assert figures.timing(cell("simplify")) == ""


def ran_in(precision: str | None, **more: Any) -> PlacementRecord:
    return PlacementRecord(
        "CPUExecutionProvider",
        {"CPUExecutionProvider": 3},
        {},
        1.0,
        precision=precision,
        **more,
    )


def test_emulated_float16_is_told_once_for_the_run_and_cell_by_cell_in_the_page() -> None:
    cells = [
        cell("fp16", placement=ran_in("emulated")),
        cell("fp16.io32", placement=ran_in("mixed")),
        cell("original", placement=ran_in("float32")),
    ]
    told = (
        "float16 was simulated in 2 cells: its accuracy and range are those of float16 with sums "
        "in float32; its speed "
        "isn't measured"
    )
    lines = [line.text for line in table.lines(RUN, cells, width=120, models={})]
    assert all(len(line) <= 120 for line in lines)
    assert " ".join(" ".join(lines).split()).count(told) == 1
    assert told in summary.page(RUN, cells, {})
    page = html_page.page(RUN, cells, {})
    assert page.count(str(markupsafe.escape(told))) == 1
    ran = [each["texts"]["precision"] for each in embedded(page)["cells"]]
    assert ran == ["float16 emulated", "float16 partly emulated", "float32"]
    unsimulated = [
        cell("fp16", placement=ran_in("emulated"), notes=(f"{NOT_SIMULATED}: no kernel",))
    ]
    assert simulated.emulation(unsimulated).startswith(
        "float16 could not be simulated in 1 cell: its accuracy is float32"
    )
    device = [cell("fp16", placement=ran_in("float16"))]
    assert "simulated" not in "".join(
        line.text for line in table.lines(RUN, device, width=120, models={})
    )


def test_an_end_that_is_the_machines_says_so() -> None:
    host = HostInfo("Another", 1, 0, "Linux", {"cuda": "A Device"})
    ran = cell(provider="cuda", machine=host, symptom=Symptom.ENVIRONMENT)
    assert figures.machine(cell(), RUN) == "A Processor, 2 cores"
    assert figures.machine(ran, RUN) == (
        "Another, 1 core; cuda on A Device. This end is the machine's, and says nothing about "
        "the model"
    )


def test_a_failing_cell_says_where_it_ran() -> None:
    record = ran_in(
        "mixed",
        time_share=0.25,
        memcpy=2,
        inserted_casts=3,
        arithmetic={"float32": 2, "float16": 1},
        executed={},
    )
    page = html_page.page(
        RUN, [cell(status=Status.FAIL, stage=Stage.PLACEMENT, placement=record)], {}
    )
    assert (
        "Nodes: 3 on CPUExecutionProvider; share of the provider asked for: 100%, of the time: "
        "25%; copies between "
        "memories: 2; Casts inserted: 3; arithmetic: 2 in float32, 1 in float16"
    ) in page


def test_the_page_has_the_fields_of_results_json() -> None:
    full = cell(
        "simplify",
        latency=full_latency(),
        sensitivity=sensitivity(),
        placement=ran_in("mixed"),
    )
    needed: Any = np.float32(0.5)
    full = replace(
        full,
        seconds={"load": float("nan")},
        accuracy=AccuracyRecord(1, {"y": output(needed)}),
    )
    [shown] = embedded(html_page.page(RUN, [full], {}))["cells"]
    recorded = html_page._plain(encode(full))
    del recorded["detail"]  # shortened
    errors = ErrorSketch(7, {"-3": 1234, "-1": 50, "0": 2}, {"0": 1.0})
    assert html_page._plain(errors) == {
        "equal": 7,
        "total": 1293,
        "beyond": 2,
        "low": -3,
        "counts": [1200, 0, 50, 2],
    }
    assert {name: shown[name] for name in recorded} == recorded


def test_a_hostile_name_stays_text_where_two_runs_are_compared() -> None:
    cells = hostile_cells()
    after = [replace(cell, status=Status.FAIL) for cell in cells]
    run = replace(RUN, command=HOSTILE, versions={HOSTILE: HOSTILE})
    before = Results(
        RUN,
        tuple(replace(cell, id=f"{cell.id}{number}") for number, cell in enumerate(cells)),
    )
    later = Results(
        run,
        tuple(replace(cell, id=f"{cell.id}{number}") for number, cell in enumerate(after)),
    )
    text = comparison.page(before, later)
    page = Page(text)
    assert page.open == []
    assert "img" not in page.tags
    assert "script" not in page.tags
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    markdown = comparison.summary(before, later)
    assert set(re.findall(r"<[^>]*>", markdown)) <= {
        "<details>",
        "<summary>",
        "</summary>",
        "</details>",
    }
    assert "http://" not in markdown
    assert all(letter.isprintable() for letter in markdown.replace("\n", ""))
