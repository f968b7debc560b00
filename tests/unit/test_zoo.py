"""Fetching models: wheels, builders and paths.

What goes wrong, and what several processes do at once.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from onnx_harness.cards import builders, fetch
from onnx_harness.cards import card as cards
from onnx_harness.cards.card import Card
from onnx_harness.errors import FetchError
from onnx_harness.names import CARD_SUFFIX

PUBLIC_ZOO = Path(__file__).parents[2] / "models"
PERMISSIVE = {"Apache-2.0", "MIT", "BSD-3-Clause"}
MODEL = b"weights of a voice detector"
OTHER = b"weights of another"


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def started(self, name: str, index: int, total: int) -> None:
        self.calls.append(("started", name, index, total))

    def received(self, name: str, bytes_done: int, bytes_total: int) -> None:
        self.calls.append(("received", name, bytes_done, bytes_total))

    def done(self, name: str) -> None:
        self.calls.append(("done", name))

    def failed(self, name: str, error: FetchError) -> None:
        self.calls.append(("failed", name, str(error)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that sees only the wheels in ``tmp_path/wheels``."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "cache"


def make_wheel(folder: Path, **members: bytes) -> Path:
    wheel = folder / "wheels" / "voices-1.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"voices/{name}.onnx", content)
        archive.writestr(
            "voices-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            "voices-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: voices\nVersion: 1.0\n",
        )
        archive.writestr("voices-1.0.dist-info/RECORD", "")
    return wheel


def wheel_card(
    folder: Path, member: str = "voice", content: bytes = MODEL, *, name: str = "voice"
) -> Card:
    return make_card(
        folder,
        f'[source]\nwheel = "voices==1.0"\nmember = "voices/{member}.onnx"\n'
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        name,
    )


def builder_card(folder: Path, code: str, name: str = "built") -> Card:
    (folder / "make.py").write_text(
        f"from pathlib import Path\n\ndef make(out: Path) -> None:\n    {code}\n"
    )
    return make_card(folder, '[source]\nbuilder = "make.py:make"', name)


def make_card(folder: Path, text: str, name: str = "a") -> Card:
    path = folder / f"{name}{CARD_SUFFIX}"
    path.write_text(text)
    return cards.read(path)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(MODEL)
    assert fetch.materialize(make_card(tmp_path, "")) == tmp_path / "a.onnx"


def test_a_path_that_isnt_there_says_which_card_wants_it(tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"^a: card .*a\.model\.toml describes .*a\.onnx, which isn't there"
    ):
        fetch.materialize(make_card(tmp_path, ""))


def test_a_path_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(OTHER)
    promised = hashlib.sha256(MODEL).hexdigest()
    with pytest.raises(
        FetchError, match=f"^a: .*a.onnx isn't the file .* should be {promised}"
    ):
        fetch.materialize(
            make_card(tmp_path, f'[source]\npath = "a.onnx"\nsha256 = "{promised}"')
        )


def test_a_member_of_a_wheel_is_extracted_and_progress_is_told(
    tmp_path: Path, cache: Path
) -> None:
    size = make_wheel(tmp_path, voice=MODEL).stat().st_size
    recorder = Recorder()
    (path,) = fetch.fetch_all([wheel_card(tmp_path)], recorder)
    assert path.read_bytes() == MODEL
    assert path.is_relative_to(cache)
    assert recorder.calls[0] == ("started", "voice", 0, 1)
    assert recorder.calls[-1] == ("done", "voice")
    assert all(call == ("received", "voice", size, size) for call in recorder.calls[1:-1])


def test_a_model_in_the_cache_is_fetched_no_more(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, voice=MODEL)
    path = fetch.materialize(wheel_card(tmp_path))
    wheel.unlink()
    assert fetch.materialize(wheel_card(tmp_path, name="same_file_other_card")) == path


def test_cards_of_one_wheel_download_it_once(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, voice=MODEL, other=OTHER)
    fetch.materialize(wheel_card(tmp_path))
    wheel.unlink()
    assert (
        fetch.materialize(wheel_card(tmp_path, "other", OTHER, name="other")).read_bytes()
        == OTHER
    )


def test_a_damaged_cache_entry_is_fetched_again(tmp_path: Path) -> None:
    make_wheel(tmp_path, voice=MODEL)
    path = fetch.materialize(wheel_card(tmp_path))
    path.write_bytes(MODEL[:5])
    assert fetch.materialize(wheel_card(tmp_path)).read_bytes() == MODEL


def test_a_member_that_a_wheel_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    make_wheel(tmp_path, voice=MODEL)
    with pytest.raises(
        FetchError,
        match=r"^voice: wheel voices==1.0 holds no .* Did you mean 'voices/voice.onnx'\?",
    ):
        fetch.materialize(wheel_card(tmp_path, "voise"))


def test_another_hash_is_refused_and_the_right_wheel_can_still_come(tmp_path: Path) -> None:
    make_wheel(tmp_path, voice=OTHER)
    found, promised = hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(MODEL).hexdigest()
    with pytest.raises(FetchError, match=f"sha256 is {found}, but should be {promised}"):
        fetch.materialize(wheel_card(tmp_path))
    make_wheel(tmp_path, voice=MODEL)
    assert fetch.materialize(wheel_card(tmp_path)).read_bytes() == MODEL


def test_a_wheel_cut_short_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, voice=MODEL)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(
        FetchError,
        match=r"^voice: (wheel voices==1\.0 can't|voices-1\.0.* isn't a whole wheel)",
    ):
        fetch.materialize(wheel_card(tmp_path))


def test_a_registry_out_of_reach_says_which_model_and_wheel_and_what_to_do(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(FetchError) as caught:
        fetch.materialize(wheel_card(tmp_path))
    message = str(caught.value)
    assert message.startswith(
        "voice: wheel voices==1.0 can't be downloaded. The package registry is out of reach;"
    )
    assert "pip's last line was: ERROR: " in message
    assert "Mend: check the network and pip's settings" in message
    assert not list(cache.rglob("*.whl"))


def test_a_wheel_that_the_registry_lacks_is_pips_word(tmp_path: Path) -> None:
    with pytest.raises(
        FetchError,
        match="or has no such package; pip's last line was: ERROR: No matching distribution found",
    ):
        fetch.materialize(wheel_card(tmp_path))


def test_an_environment_without_pip_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FetchError, match=r"pip isn't installed for .*Mend: .* -m ensurepip"):
        fetch.materialize(wheel_card(tmp_path))


def test_the_other_models_are_fetched_when_one_fails(tmp_path: Path) -> None:
    make_wheel(tmp_path, voice=MODEL)
    missing = make_card(tmp_path, "", "missing")
    recorder = Recorder()
    with pytest.raises(FetchError, match="1 of 2 models can't be had:\nmissing: card"):
        fetch.fetch_all([missing, wheel_card(tmp_path)], recorder)
    assert [call[:2] for call in recorder.calls if call[0] != "received"] == [
        ("started", "missing"),
        ("failed", "missing"),
        ("started", "voice"),
        ("done", "voice"),
    ]


def test_a_builder_writes_the_model_and_files_beside_it(tmp_path: Path) -> None:
    code = "out.write_text('graph'); out.with_suffix('.data').write_text('weights')"
    path = fetch.materialize(builder_card(tmp_path, code))
    assert path.read_text() == "graph"
    assert path.with_suffix(".data").read_text() == "weights"


def test_a_built_model_is_built_again_only_when_its_builder_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"out.write_text('1'); Path({str(log)!r}).open('a').write('built ')"
    first = fetch.materialize(builder_card(tmp_path, code))
    assert fetch.materialize(builder_card(tmp_path, code)) == first
    assert log.read_text() == "built "
    assert (
        fetch.materialize(builder_card(tmp_path, code.replace("'1'", "'2'"))).read_text()
        == "2"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "1 / 0",
            r"^built: builder make\.py:make failed: ZeroDivisionError: division by zero",
        ),
        (
            "import no_such_library",
            r"failed: ModuleNotFoundError: .*Mend: pip install 'onnx-harness\[zoo\]'",
        ),
        (
            "import os; os.abort()",
            r"^built: builder make\.py:make was killed by SIGABRT \(signal 6\)",
        ),
        ("pass", r"^built: builder make\.py:make wrote no model"),
    ],
)
def test_a_builder_that_fails_is_a_fetch_error(
    tmp_path: Path, cache: Path, code: str, message: str
) -> None:
    with pytest.raises(FetchError, match=message):
        fetch.materialize(builder_card(tmp_path, code))
    assert not list(cache.rglob("*.onnx"))


def test_a_builder_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "BUILD_SECONDS", 0.5)
    with pytest.raises(FetchError, match=r"^built: builder make\.py:make was ended after"):
        fetch.materialize(builder_card(tmp_path, "import time; time.sleep(60)"))


def test_a_builder_that_isnt_there_is_a_fetch_error(tmp_path: Path) -> None:
    card = make_card(tmp_path, '[source]\nbuilder = "make.py:mak"')
    with pytest.raises(
        FetchError, match=r"^a: builder file .*make\.py, .* can't be read: No such file"
    ):
        fetch.materialize(card)
    builder_card(tmp_path, "pass")
    with pytest.raises(FetchError, match=r"has no function 'mak'\. Did you mean 'make'\?"):
        fetch.materialize(card)
    (tmp_path / "make.py").write_text("def make(:")
    with pytest.raises(FetchError, match=r"isn't Python: invalid syntax, line 1"):
        fetch.materialize(card)


def test_processes_at_once_build_once_and_agree(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        f"import time; time.sleep(0.3); out.write_text('1'); "
        f"Path({str(log)!r}).open('a').write('built ')"
    )
    card = builder_card(tmp_path, code)
    program = (
        "import sys; from pathlib import Path; from onnx_harness.cards import card as "
        "cards, fetch as zoo; "
    )
    program += "print(zoo.materialize(cards.read(Path(sys.argv[1]))))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(card.path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert answers == {str(fetch.materialize(card))}
    assert log.read_text() == "built "


def test_a_fetch_that_was_killed_is_done_again(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = (
        f"import time; out.write_text('half'); Path({str(begun)!r}).touch(); time.sleep(1); "
        f"out.write_text('whole')"
    )
    card = builder_card(tmp_path, code)
    program = (
        "import sys; from pathlib import Path; from onnx_harness.cards import card as "
        "cards, fetch as zoo; "
    )
    program += "zoo.materialize(cards.read(Path(sys.argv[1])))"
    with subprocess.Popen([sys.executable, "-c", program, str(card.path)]) as process:
        while not begun.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    assert fetch.materialize(card).read_text() == "whole"


def test_fetching_imports_neither_onnx_nor_numpy() -> None:
    program = (
        "import json, sys, onnx_harness.cards.fetch; print(json.dumps(sorted(sys.modules)))"
    )
    modules = json.loads(subprocess.check_output([sys.executable, "-c", program], text=True))
    assert not {"numpy", "onnx", "onnxruntime"} & set(modules)


def test_the_public_zoo_is_permissive_and_says_what_each_model_is() -> None:
    paths = sorted(PUBLIC_ZOO.glob(f"*{CARD_SUFFIX}"))
    assert len(paths) >= 20
    for card in map(cards.read, paths):
        assert card.license in PERMISSIVE, card.name
        assert card.summary, card.name
        if isinstance(card.source, cards.BuilderSource):
            assert builders._check_builder(card, card.source, card.source.file.read_bytes())
