"""report.html in a browser: every view renders, links and filters work, nothing leaves the file."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from onnx_harness.results.generation import GenerationRecord
from tests.browser import runs
from tests.browser.conftest import Opened

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNS = {
    "green": runs.passing(6),
    "failing": runs.failing(),
    "hostile": runs.hostile(),
    "empty": [],
}
FAILED = "failing_0-optimize-cuda"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["green", "failing", "hostile"])
def test_no_view_is_wider_than_the_screen(
    opened: Opened, name: str, width: int, scheme: str
) -> None:
    cells = RUNS[name]
    page = opened(cells, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for each in cells[-3:]:
        page.evaluate(
            "id => { location.hash = '#cell=' + encodeURIComponent(id) }", printable(each.id)
        )
        page.wait_for_selector("dialog[open]")
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width


def printable(text: str) -> str:
    from onnx_harness.report.escape import printable as escaped

    return escaped(text)


def test_the_first_screen_has_the_verdict_and_what_to_ship(opened: Opened) -> None:
    page = opened(RUNS["failing"])
    assert page.inner_text("h1") == "Fail: 20 of 68 cells, of 3 causes"
    rows = page.locator("#ship tbody tr").all_inner_texts()
    assert "nothing passes" in rows[0]
    assert any("onnx-harness transform" in row for row in rows)
    assert page.locator(".cause").count() == 3


def test_a_click_on_the_matrix_opens_the_cell_and_escape_returns(opened: Opened) -> None:
    page = opened(RUNS["failing"])
    link = page.locator("#matrix td.fail a").first
    link.click()
    assert page.inner_text("#cell-title") == FAILED
    assert f"#cell={quote(FAILED)}" in page.url
    body = page.inner_text("dialog .body")
    for expected in (
        "departs by 3.1e-02",
        f"reports/repro/{FAILED}",
        "--seed 0",
        "NonZero",
        "Graph",
    ):
        assert expected in body
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert "cell=" not in page.url
    assert link.evaluate("node => node === document.activeElement")


def test_the_cause_stands_with_the_failures_and_with_the_cell(opened: Opened) -> None:
    page = opened(RUNS["failing"], f"#cell={quote(FAILED)}")
    cause = page.locator("dialog section", has_text="Cause").first.inner_text()
    for expected in (
        "overflows in float16",
        "/layer.0/Exp (Exp): own error 3.1e-02",
        "variant fp16(op_block_list",
    ):
        assert expected in cause
    page.keyboard.press("Escape")
    assert "overflows in float16" in page.locator(".cause").first.inner_text()


def test_an_address_opens_the_filters_and_the_cell(opened: Opened) -> None:
    page = opened(
        RUNS["failing"], f"#q=failing_0&status=fail&value=size&cell={quote(FAILED)}"
    )
    assert page.inner_text("#cell-title") == FAILED
    page.keyboard.press("Escape")
    assert page.inner_text("#filters output") == "5 of 68 cells"
    assert page.locator("[name=value]").input_value() == "size"
    assert page.locator(".heat tbody tr:visible").count() == 1
    assert page.locator("#list tbody tr").count() == 5


def test_filters_go_into_the_address_and_the_figure_can_be_changed(opened: Opened) -> None:
    page = opened(RUNS["failing"])
    assert page.locator("#matrix td.pass a").nth(1).inner_text().endswith("x")
    page.locator("[name=value]").select_option("placement")
    assert page.locator("#matrix td.pass a").nth(1).inner_text() == "100%"
    page.locator("[name=status][value=pass]").uncheck()
    page.locator("[name=q]").fill("cuda fp16.io32")
    assert page.url.endswith("#q=cuda%20fp16.io32&status=fail&value=placement")
    # Off the screen nothing is rendered.
    shown = page.locator("#list tbody tr").all_text_contents()
    assert shown
    assert [row for row in shown if "fp16.io32-cuda" not in row] == []


def test_the_keyboard_reaches_a_cell_and_the_terms(opened: Opened) -> None:
    page = opened(RUNS["green"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("!!document.activeElement.closest('.heat td')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.locator("dialog a.term").first.press("Enter")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.tagName") == "DT"


def test_hostile_names_stay_text(opened: Opened) -> None:
    page = opened(RUNS["hostile"])
    for each in RUNS["hostile"]:
        page.evaluate(
            "id => { location.hash = '#cell=' + encodeURIComponent(id) }", printable(each.id)
        )
        page.wait_for_function(
            "id => document.querySelector('#cell-title').textContent === id",
            arg=printable(each.id),
        )
        assert page.locator("img, dialog b").count() == 0
    assert page.locator("script").count() == 2


def test_without_a_script_the_verdict_the_matrix_and_the_failures_are_there(
    opened: Opened,
) -> None:
    page = opened(RUNS["failing"], java_script_enabled=False)
    assert page.locator("#matrix td a").count() == 68
    assert "departs by 3.1e-02" in page.inner_text("#failures")
    assert not page.locator("#filters").is_visible()
    assert not page.locator(".copy").first.is_visible()


def test_an_empty_run_opens(opened: Opened) -> None:
    page = opened(RUNS["empty"], java_script_enabled=False)
    assert page.inner_text("h1") == "Nothing was checked"


QUESTIONS = {
    "what to ship": ([], "#ship", "onnx-harness transform model_0.onnx"),
    "why did it fail": (
        [".heat td.fail a"],
        "dialog",
        "not faithful: output sigmoid_0 departs",
    ),
    "which node": ([".heat td.fail a"], "dialog", "/layer.0/Exp (Exp): own error 3.1e-02"),
    "since when": (
        [".heat td.fail a"],
        "dialog",
        "fails since 2026-01-02 03:04 (1 run); before, on 2026-01-01",
    ),
    "is the machine to blame": (
        [".heat td.fail a"],
        "dialog",
        "What differs: onnx: 1.22.0 → 1.23.2",
    ),
    "what would pass": (
        [".heat td.fail a"],
        "dialog",
        "variant fp16(op_block_list=['Exp']) passes",
    ),
    "where did it run": ([".heat td.fail a"], "dialog", "328 on CUDAExecutionProvider"),
    "how to run it again": (
        [".heat td.fail a", "dialog .copy"],
        "dialog",
        "pytest models/failing_0.model.toml",
    ),
}
"""A stranger's questions: what is clicked, where the answer stands, and what it says."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_in_two_clicks(opened: Opened, question: str) -> None:
    clicks, place, answer = QUESTIONS[question]
    assert len(clicks) <= 2
    page = opened(RUNS["failing"])
    for selector in clicks:
        page.locator(selector).first.click()
    assert answer in page.inner_text(place)


def test_a_cell_shows_all_its_evidence(opened: Opened) -> None:
    full = runs.evidence()
    page = opened([full], f"#cell={quote(full.id)}")
    shown = " ".join(page.inner_text("dialog .body").split())
    for expected in (
        "leaves 60 of 64",
        "'x' isn't followed back",
        "/gru/GRU GRU 1.4 ms 2.1 ms [1.47x, 1.53x] 97%",
        "fp16.io32: fuse adds",
        "were clipped at 65504",
        "● simulated float16, ◇ this provider's float32",
        "rel L2, this provider's float32 1.0e-7",
        "17 of",
        "operator CUDAExecutionProvider CPUExecutionProvider GRU 12 Relu 2 1 NonZero 2",
    ):
        assert expected in shown
    assert page.locator("dialog .second-mark").count() == 2
    assert page.locator("dialog .floor-mark").count() == 2
    assert page.locator("dialog .ideal-mark").count() == 2
    assert page.locator("dialog rect.bar").count() == 28
    rows = page.locator("dialog tr", has_text="Add").all_inner_texts()
    assert any(row.split()[1] == "500" for row in rows)
    page.locator("dialog summary", has_text="unchanged").click()
    assert page.locator("dialog tr", has_text="Conv").inner_text().split()[:3] == [
        "Conv",
        "100",
        "100",
    ]


def test_a_cell_that_decodes_shows_how(opened: Opened) -> None:
    record = GenerationRecord(16, 15 / 16, 9, 0.012, 0.031, 0.05, "growing", 2.4, None)
    decoding = replace(runs.evidence(), generation=record)
    page = opened([decoding], f"#cell={quote(decoding.id)}")
    shown = " ".join(page.inner_text("dialog .body").split())
    assert (
        "Greedy decoding tokens that agree 15 of 16 first other token step 9 its margin 0.012 "
        "time to the first token 2.40 ms"
    ) in shown
    assert "time per further token" not in shown


def test_every_figure_of_a_cell_is_a_term_with_its_meaning(opened: Opened) -> None:
    full = runs.evidence()
    page = opened([full], f"#cell={quote(full.id)}")
    terms = page.locator("dialog a.term").evaluate_all(
        "links => links.map(link => [link.hash, link.title])"
    )
    assert len({where for where, _ in terms}) > 15
    for where, meaning in terms:
        assert len(meaning) > 20
        link = page.locator(f"[id='{where[1:]}'] + dd a").get_attribute("href")
        assert str(link).startswith("../docs/")


def test_the_nights_are_drawn_and_their_cell_shows_them(opened: Opened) -> None:
    page = opened(RUNS["green"])
    figure = page.locator("#nights figure").first
    assert "moved on 2025-12-21" in figure.inner_text()
    assert figure.locator("circle").count() == 31
    figure.locator("figcaption a").click()
    assert page.locator("dialog svg.trend circle").count() == 31


@pytest.mark.parametrize(
    ("name", "view", "place"),
    [("green", "", "#plots"), ("green", "", "#nights"), ("hostile", "first", "dialog")],
)
def test_any_plot_is_saved_as_a_picture_of_its_own(
    opened: Opened, name: str, view: str, place: str
) -> None:
    cells = RUNS[name]
    page = opened(cells, f"#cell={quote(printable(cells[0].id), safe='')}" if view else "")
    with page.expect_download() as saved:
        page.locator(f"{place} .save").first.click()
    assert saved.value.suggested_filename.endswith(".svg")
    picture = ElementTree.parse(saved.value.path()).getroot()
    tags = {node.tag.rpartition("}")[2] for node in picture.iter()}
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert tags & {"circle", "rect"}
    assert not tags & {"script", "img", "foreignObject"}
    assert not any("href" in node.attrib for node in picture.iter())


@pytest.mark.parametrize("name", ["green", "hostile"])
def test_a_plot_is_saved_in_pixels_too(opened: Opened, name: str) -> None:
    page = opened(RUNS[name])
    with page.expect_download() as saved:
        page.locator("#plots .save", has_text="PNG").first.click()
    assert saved.value.suggested_filename.endswith(".png")
    picture = saved.value.path().read_bytes()
    width, _ = struct.unpack(">II", picture[16:24])
    assert picture.startswith(b"\x89PNG")
    assert width >= 900
    drawn = page.evaluate(
        """async bytes => {
            const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
            const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
            canvas.drawImage(bitmap, 0, 0);
            const pixels = canvas.getImageData(0, 0, bitmap.width, bitmap.height).data;
            return new Set(new Uint32Array(pixels.buffer)).size;
        }""",
        list(picture),
    )
    assert drawn > 20, "more than a white page"


def test_a_name_with_underscores_is_not_broken_within_a_word(opened: Opened) -> None:
    long = "embedding_model_for_a_language_that_nobody_speaks_v2"
    page = opened([replace(each, model=long) for each in runs.passing(1)])
    parts = page.locator("#ship tbody th").first.evaluate(
        """head => [...head.querySelectorAll(".part")].map(part => {
            const range = document.createRange();
            range.selectNodeContents(part);
            return range.getClientRects().length;
        })"""
    )
    assert len(parts) > 5
    assert set(parts) == {1}, "each part lies on one line"


def test_print_shows_every_row_of_the_matrix(opened: Opened) -> None:
    page = opened(RUNS["green"])
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.heat')).overflow")
        == "visible"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["", f"#cell={quote(FAILED)}", "#cell=model_1-fp16-cpu"])
def test_axe_finds_nothing_serious(opened: Opened, scheme: str, view: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe isn't installed"
    )
    page = opened(RUNS["failing"], view, color_scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    grave = [each for each in found if each["impact"] in {"serious", "critical"}]
    assert [
        (each["id"], [node["html"] for node in each["nodes"][:3]]) for each in grave
    ] == []


def thread_seconds(page: "Page") -> float:
    """Seconds of the processor that the page's own thread takes to open it again.

    Unlike those on the wall they hardly depend on what else the machine does.
    """
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")  # it counts from here on
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(
        next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime")
    )


def test_five_thousand_cells_open_in_two_seconds_and_three_megabytes(
    opened: Opened, tmp_path: Path
) -> None:
    page = opened(runs.large())
    assert 0.1 < thread_seconds(page) < 2
    assert page.locator("#list tbody tr").count() == 50
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    page.locator("[name=q]").fill("model_42 variant_7")
    assert page.inner_text("#filters output") == "1 of 5,000 cells"
