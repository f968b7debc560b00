"""The command line as a whole: help, misspellings, exit codes, doctor, view and zoo."""

import contextlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import parser

from onnx_harness import cli
from onnx_harness.cli import doctor, main, zoo
from onnx_harness.cli.show import size, text
from onnx_harness.errors import ModelError
from onnx_harness.isolate.confine import files_are_left, limits_are_set, network_is_left
from onnx_harness.providers import Problem
from onnx_harness.providers.probe import Availability
from onnx_harness.settings import Settings
from onnx_harness.settings.kinds import byte_count

NAMES = ("cpu", "cuda", "openvino", "tensorrt", "webgpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a pyproject.toml, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def save_relu(path: Path) -> None:
    onnx.save(
        parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Relu(x)}'
        ),
        path,
    )


def probed(
    monkeypatch: pytest.MonkeyPatch, *usable: str, conflict: Problem | None = None
) -> None:
    """Have every provider found usable or not, without trying any."""

    def look(name: str, _: Settings) -> Availability:
        if name in usable:
            return Availability(name, True, details={"distribution": "onnxruntime 1.2.3"})
        return Availability(name, False, "libfancy.so is [bold]gone[/]", "pip install fancy")

    monkeypatch.setattr(doctor, "_probe", look)
    monkeypatch.setattr(doctor, "conflict", lambda: conflict)


# The program


def test_help_lists_every_command_and_every_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert all(f"\n  {code} " in out for code in (0, 1, 2, 130))
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [*cli.COMMANDS, "zoo fetch", "zoo list"])
def test_every_command_has_help_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert f"usage: onnx-harness {command} " in capsys.readouterr().out


def test_version_names_what_results_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert "onnx-harness " in out
    assert f"onnx {onnx.__version__}" in out
    assert "onnxruntime " in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["docter"], "there is no command 'docter'. Did you mean 'doctor'?"),
        (["zoo", "fech"], "there is no command 'fech'. Did you mean 'fetch'?"),
        (["doctor", "--jsn"], "there is no option --jsn. Did you mean '--json'?"),
        (["doctor", "--js"], "there is no option --js."),
        (["inspect", "m.onnx", "--cell-memory", "lots"], "'lots' isn't a size"),
        (["view", "m.onnx", "--port", "0"], "'0' isn't a port"),
        ([], "name a command"),
    ],
)
def test_a_usage_error_is_explained_and_exits_with_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_an_error_is_one_line_on_standard_error_and_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> int:
        raise ModelError("[red]m.onnx[/red] \x1b[31mis broken")

    monkeypatch.setattr(doctor, "run", refuse)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "onnx-harness: error: [red]m.onnx[/red] \\x1b[31mis broken\n"


def test_interrupted_it_exits_with_130_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "onnx-harness: error: interrupted\n"


def test_the_installed_program_starts_without_onnx_and_without_onnxruntime() -> None:
    code = (
        "import sys, onnx_harness.cli as c; c.main(['--version']); "
        "print(sorted({'onnx', 'onnxruntime'} & {*sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines()[-1] == "[]", run.stderr
    assert run.returncode == 0


def test_a_malformed_pyproject_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.onnx-harness]\nsed = 1\n")
    assert main(["doctor"]) == 2
    assert "Did you mean 'seed'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("4G", 4 * 10**9),
        ("4GiB", 4 * 2**30),
        ("1.5k", 1500),
        ("700", 700),
        ("500 MB", 5 * 10**8),
    ],
)
def test_a_size_may_have_a_unit(word: str, count: int) -> None:
    assert byte_count(word) == count


def test_sizes_and_texts_are_written_for_people() -> None:
    assert [size(count) for count in (0, 999, 4_700_000, 2_100_000_000)] == [
        "0 B",
        "999 B",
        "4.7 MB",
        "2.1 GB",
    ]
    assert text("a\x1b[2J[/red]\nb").plain == "a\\x1b[2J[/red]\nb"


# doctor


def test_doctor_tells_what_works_what_does_not_and_the_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(monkeypatch, "cpu")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "works" in out
    assert "libfancy.so is [bold]gone[/]." in out
    assert "mend: pip install fancy" in out
    assert "1 of 5 providers can be used here: cpu" in out


def test_doctor_exits_with_1_when_the_cpu_provider_does_not_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed(monkeypatch, "cuda")
    assert main(["doctor"]) == 1


def test_doctor_exits_with_1_when_two_distributions_share_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(
        monkeypatch,
        *NAMES,
        conflict=Problem("onnxruntime and onnxruntime-gpu are installed", "uninstall one"),
    )
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "conflict: onnxruntime and onnxruntime-gpu are installed." in out
    assert "mend: uninstall one" in out


def test_doctor_prints_only_json_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(monkeypatch, "cpu")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "versions",
        "conflict",
        "network_kept",
        "files_kept",
        "limits_kept",
        "left_out",
        "providers",
    }
    assert found["providers"]["cpu"]["usable"] is True
    assert found["providers"]["cuda"]["mend"] == "pip install fancy"


def test_doctor_says_what_the_process_that_opens_models_could_not_give_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(monkeypatch, "cpu")
    reasons: dict[str, str | None] = {
        "network_is_left": "no filter is written for an abacus",
        "files_are_left": "the kernel has no Landlock",
        "limits_are_set": "an abacus has none",
    }
    monkeypatch.setattr(doctor, "_kept", lambda question, _: reasons[question.__name__])
    assert main(["doctor"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for what, name in (
        ("keeps the network", "network_is_left"),
        ("may read any file", "files_are_left"),
        ("has no limits of its own", "limits_are_set"),
    ):
        assert f"models are opened in a process that {what}" in told
        assert f": {reasons[name]}" in told
        reasons[name] = None
    assert main(["doctor"]) == 0
    assert "models are opened" not in capsys.readouterr().out


def test_doctor_asks_a_worker_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process that opens models itself: this one gives nothing up."""
    asked = []

    class Confined:
        def call(self, question: Callable[[], str | None]) -> str | None:
            asked.append(question)
            return "why"

    @contextlib.contextmanager
    def started(_: Settings) -> Iterator[Confined]:
        yield Confined()

    monkeypatch.setattr(doctor, "started_worker", started)
    for question in (network_is_left, files_are_left, limits_are_set):
        assert doctor._kept(question, Settings()) == "why"
    assert asked == [network_is_left, files_are_left, limits_are_set]


def test_doctor_lives_on_when_a_probe_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", die)
    found = doctor._probe("cpu", Settings())
    assert not found.usable
    assert "SIGABRT" in str(found.reason)


def die(_: str) -> Availability:
    os.abort()


# view


def test_view_says_what_to_install_when_netron_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["view", "m.onnx"]) == 1
    assert (
        "pip install 'onnx-harness[explorer]', or 'onnx-harness[view]'"
        in capsys.readouterr().err
    )


def test_view_shows_the_figures_of_a_cell_in_model_explorer_where_that_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    fake = types.ModuleType("model_explorer")
    config = types.SimpleNamespace(
        add_model_from_path=lambda path: shown.append(Path(path).name),
        add_node_data_from_path=lambda path, model_name: shown.append(
            (Path(path).stem, model_name)
        ),
    )
    fake.config = lambda: config  # type: ignore[attr-defined]
    fake.visualize_from_config = lambda **options: shown.append(options["host"])  # type: ignore[attr-defined]
    found = dict.fromkeys(("model_explorer", "model_explorer_onnx"), object())
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    monkeypatch.setitem(sys.modules, "model_explorer", fake)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repro" / "net-fp16-cpu"
    (folder / "transformed").mkdir(parents=True)
    for name in ("model.onnx", "transformed/model.onnx"):
        save_relu(folder / name)
    words = ["view", "net-fp16-cpu", "--report-dir", str(tmp_path)]
    assert main([*words, "--node-data"]) == 0
    assert shown == []
    assert main([*words, "--no-browser"]) == 0
    figures = ["precision", "placement", "time_us", "own_error", "error"]
    assert shown == [
        "candidate.onnx",
        "original.onnx",
        *((figure, "candidate.onnx") for figure in figures),
        "localhost",
    ]
    assert "the figures of its nodes are in" in capsys.readouterr().out
    assert main(["view", str(folder / "model.onnx"), "--node-data"]) == 2


def test_view_serves_the_original_and_the_candidate_of_a_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[str, int]] = []

    def start(path: str, address: tuple[str, int], browse: bool) -> tuple[str, int]:
        assert browse
        served.append((path, address[1]))
        return address

    fake = types.ModuleType("netron")
    monkeypatch.setattr("importlib.util.find_spec", {"netron": object()}.get)
    fake.start = start  # type: ignore[attr-defined]
    fake.wait = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "netron", fake)
    folder = tmp_path / "repro" / "net-fp16-cpu"
    (folder / "transformed").mkdir(parents=True)
    words = ["view", "net-fp16-cpu", "--report-dir", str(tmp_path), "--port", "8123"]
    assert main(words) == 2
    assert "no failing cell of that id" in capsys.readouterr().err
    for name in ("model.onnx", "transformed/model.onnx"):
        (folder / name).write_bytes(b"")
    assert main(words) == 0
    assert served == [
        (str(folder / "model.onnx"), 8123),
        (str(folder / "transformed/model.onnx"), 8124),
    ]
    assert "original of net-fp16-cpu at http://localhost:8123" in capsys.readouterr().out


def test_view_serves_the_model_to_this_machine_only_and_tells_the_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_relu(tmp_path / "m.onnx")
    asked: list[object] = []

    def start(file: str, address: tuple[str, int], browse: bool) -> tuple[str, int]:
        asked.extend([file, address, browse])
        return address

    fake = types.ModuleType("netron")
    fake.start = start  # type: ignore[attr-defined]
    fake.wait = lambda: asked.append("waited")  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", {"netron": object()}.get)
    monkeypatch.setitem(sys.modules, "netron", fake)
    assert main(["view", "m.onnx", "--port", "8123", "--no-browser"]) == 0
    assert asked == ["m.onnx", ("localhost", 8123), False, "waited"]
    assert capsys.readouterr().out == "m at http://localhost:8123 (Ctrl-C ends it)\n"


# zoo

BUILDER = """
def relu(path):
    import onnx.parser
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Relu(x)}'
    onnx.save(onnx.parser.parse_model(text), path)
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A zoo of a built model, one that is there, and one that is missing."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "builders.py").write_text(BUILDER)
    (folder / "built.model.toml").write_text(
        '[model]\nlicense = "MIT"\n[source]\nbuilder = "builders.py:relu"\n'
    )
    (folder / "there.model.toml").write_text("")
    (folder / "missing.model.toml").write_text("")
    save_relu(folder / "there.onnx")
    return folder


def test_zoo_list_shows_licence_source_and_state(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "list", str(models)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["built", "MIT", "builders.py:relu", "to", "build"],
        ["missing", "-", "missing.onnx", "missing"],
        ["there", "-", "there.onnx", "there"],
    ]


def test_zoo_list_prints_json_when_asked(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "list", str(models), "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["built"]["license"] == "MIT"
    assert found["there"]["path"].endswith("there.onnx")
    assert found["missing"]["path"] is None


@pytest.mark.usefixtures("models")
def test_zoo_fetch_goes_on_after_a_failure_and_exits_with_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["zoo", "fetch"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "1/3 built: ready",
        "2/3 missing: failed",
        "3/3 there: ready",
    ]
    assert "1 of 3 models can't be had" in captured.err
    assert "missing.onnx, which isn't there" in captured.err


def test_zoo_fetch_says_nothing_when_told_so(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "fetch", "-q", str(models / "there.model.toml")]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("modells", "there is no folder or file modells"),
        ("models/their.model.toml", "Did you mean 'there.model.toml'?"),
        ("models/there.onnx", "isn't a model card"),
        ("empty", "there is no model card (NAME.model.toml) in empty"),
    ],
)
def test_zoo_refuses_what_is_no_card(
    models: Path, path: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (models.parent / "empty").mkdir()
    assert main(["zoo", "fetch", path]) == 2
    assert told in capsys.readouterr().err


def test_zoo_takes_each_card_once(models: Path) -> None:
    found = zoo.find_cards([models / "there.model.toml", models])
    assert [card.name for card in found] == ["there", "built", "missing"]
