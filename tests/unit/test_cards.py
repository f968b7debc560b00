"""Model cards: what a good one says, and what every kind of bad one is told."""

import re
from pathlib import Path

import pytest

from onnx_harness.cards import card as cards
from onnx_harness.cards.card import (
    BuilderSource,
    Card,
    InputSpec,
    KnownFailure,
    PathSource,
    PlacementSpec,
    ToleranceSpec,
    WheelSource,
)
from onnx_harness.errors import CardError
from onnx_harness.results.cells import Stage
from onnx_harness.transforms import Precision

SHA256 = "0123456789abcdef" * 4
WHEEL = f"""
[source]
wheel  = "voices==6.2.3"
member = "voices/data/Voice.onnx"
sha256 = "{SHA256.upper()}"
"""
FAILURE = """
[[known_failure]]
variants = ["simplify"]
stage = "run"
reason = "it does"
versions = { onnxslim = "0.1" }
"""


def write(folder: Path, text: str, name: str = "My-Voice.model.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> Card:
    return cards.read(write(folder, text))


def test_a_card_says_everything_that_it_can(tmp_path: Path) -> None:
    card = read(
        tmp_path,
        f"""
        [model]
        summary = "Voice activity detector"
        license = "MIT"
        {WHEEL}
        [inputs]
        sr    = {{ values = [16000, 8000] }}
        input = {{ generator = "audio", sizes = {{ 16000 = 576, 8000 = [288, 320] }}, by = "sr" }}
        [inputs."a b/c"]
        low = -1
        high = 2.5
        shapes = [[1, 3], [0]]
        [tolerance.output]
        atol = 1e-3
        signed_zero = false
        [tolerance."*"]
        sqnr_db = 15
        [sensitivity]
        minimum = 0.95
        [recorded]
        outputs = "note"
        [placement]
        min_share = 0.9
        min_time_share = 1
        max_memcpy = 2
        allowed_cpu_ops = ["NonZero", "com.example:Lookup"]
        [placement.webgpu]
        min_share = 0.5
        [[known_failure]]
        variants = ["simplify+fp16.io32"]
        providers = ["cpu"]
        stage = "compare"
        reason = "a cast too many"
        versions = {{ onnxconverter-common = "1.16.0" }}
        """,
    )
    assert card == Card(
        path=tmp_path / "My-Voice.model.toml",
        name="my_voice",
        source=WheelSource("voices==6.2.3", "voices/data/Voice.onnx", SHA256),
        summary="Voice activity detector",
        license="MIT",
        inputs={
            "sr": InputSpec(values=(16000, 8000)),
            "input": InputSpec(
                generator="audio", sizes={"16000": (576,), "8000": (288, 320)}, by="sr"
            ),
            "a b/c": InputSpec(low=-1.0, high=2.5, shapes=((1, 3), (0,))),
        },
        tolerance={
            "output": ToleranceSpec(atol=1e-3, signed_zero=False),
            "*": ToleranceSpec(sqnr_db=15.0),
        },
        placement=PlacementSpec(
            0.9,
            1.0,
            2,
            ("NonZero", "com.example:Lookup"),
            by_provider={"webgpu": PlacementSpec(0.5)},
        ),
        known_failures=(
            KnownFailure(
                variants=("simplify+fp16.io32",),
                stage="compare",
                reason="a cast too many",
                versions={"onnxconverter-common": "1.16.0"},
                providers=("cpu",),
            ),
        ),
        least_sensitivity=0.95,
        recorded_outputs="note",
    )


@pytest.mark.parametrize(
    "text",
    [
        "[inputs.x]\nhigh = 0",
        "[tolerance.y]\natol = 0",
        "[tolerance.y]\nsigned_zero = false",
        "[tolerance.y.fp16]\natol = 1",
        "[placement]\nmin_share = 0",
        "[placement]\nmax_memcpy = 0",
        "[placement.cuda]\nmin_share = 1",
        '[recorded]\noutputs = "note"',
        FAILURE,
    ],
)
def test_whatever_a_card_says_of_a_verdict_changes_its_digest(
    tmp_path: Path, text: str
) -> None:
    empty = read(tmp_path, "").digest()
    assert read(tmp_path, text).digest() != empty
    assert read(tmp_path, '[model]\nsummary = "another model"').digest() == empty


def test_an_empty_card_is_about_the_model_beside_it(tmp_path: Path) -> None:
    assert read(tmp_path, "").source == PathSource(tmp_path / "My-Voice.onnx")


def test_a_path_is_relative_to_the_card(tmp_path: Path) -> None:
    card = read(tmp_path, f'[source]\npath = "exports/b.onnx"\nsha256 = "{SHA256}"')
    assert card.source == PathSource(tmp_path / "exports/b.onnx", SHA256)


def test_a_builder_is_a_file_beside_the_card_and_a_function(tmp_path: Path) -> None:
    assert read(tmp_path, '[source]\nbuilder = "make.py:cnn"').source == BuilderSource(
        tmp_path / "make.py", "cnn"
    )


def test_the_stages_that_a_card_may_name_are_those_of_a_cell_that_failed() -> None:
    assert set(cards.FAILING_STAGES) == {stage.value for stage in Stage} - {Stage.DONE.value}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "[modle]\nlicense = 'MIT'",
            1,
            "modle isn't a key of a card. Did you mean 'model'? Known: custom_ops,",
        ),
        (
            "[model]\nlicence = 'MIT'",
            2,
            "model.licence isn't a key of a card. Did you mean 'license'?",
        ),
        ("license = 'MIT'", 1, "license isn't a key of a card."),
        ("model = 3", 1, "model is 3, but should be a table"),
        ("[model]\nsummary = 3", 2, "model.summary is 3, but should be text"),
        ("[model]\nlicense = ''", 2, "model.license is '', but should be text"),
        (
            "[source]\nbuilder = 'a.py:f'\npath = 'a.onnx'",
            3,
            "source.path names 2 sources (builder, path): keep one",
        ),
        (
            "[source]\nmember = 'a.onnx'",
            1,
            "source names no source: it needs one of wheel, builder, path",
        ),
        (
            "[source]\nmember = 'a.onnx'\npath = 'a.onnx'",
            2,
            "source.member has no effect beside 'path': remove it",
        ),
        (
            f"[source]\nbuilder = 'a.py:f'\nsha256 = '{SHA256}'",
            3,
            "source.sha256 has no effect beside 'builder'",
        ),
        ("[source]\nwheel = 'a==1'", 1, "source.member is missing"),
        ("[source]\nwheel = 'a==1'\nmember = 'b'", 1, "source.sha256 is missing"),
        (
            WHEEL.replace("==", ">="),
            3,
            "source.wheel is 'voices>=6.2.3', but should pin one version",
        ),
        (
            WHEEL.replace("voices==", "-rother=="),
            3,
            "source.wheel is '-rother==6.2.3', but should pin one version",
        ),
        (
            WHEEL.replace("voices/", "../"),
            4,
            (
                "source.member is '../data/Voice.onnx', but should be the path of a file within "
                "the "
                "wheel"
            ),
        ),
        (
            WHEEL.replace(SHA256.upper(), "0A"),
            5,
            "source.sha256 is '0A', but should be 64 hexadecimal digits",
        ),
        (
            "[source]\nbuilder = 'a.py'",
            2,
            "source.builder should name a file and a function",
        ),
        ("[inputs]\nx = 3", 2, "inputs.x is 3, but should be a table"),
        (
            "[placement]\nmin_shares = 1",
            2,
            "placement.min_shares isn't a key of a card. Did you mean 'min_share'?",
        ),
        (
            "[placement]\nmin_share = 95",
            2,
            "placement.min_share is 95, but a share lies between 0 and 1",
        ),
        (
            "[placement]\nmin_time_share = -1",
            2,
            "placement.min_time_share is -1, but a share lies between 0 and 1",
        ),
        (
            "[placement]\nmax_memcpy = 0.5",
            2,
            "placement.max_memcpy is 0.5, but should be a whole number from 0",
        ),
        (
            "[placement.cpu]\nmin_share = 1",
            1,
            "placement.cpu has no effect: nothing stands behind the CPU provider",
        ),
        (
            "[placement.cuda]\nmin_share = 2",
            2,
            "placement.cuda.min_share is 2, but a share lies between 0 and 1",
        ),
        (
            "[placement.cuda]\nshare = 1",
            2,
            "placement.cuda.share isn't a key of a card. Did you mean 'min_share'?",
        ),
        (
            "[placement]\nallowed_cpu_ops = [3]",
            2,
            "placement.allowed_cpu_ops is [3], but should list op types",
        ),
        (
            "[inputs.x]\nvalue = 3",
            2,
            "inputs.x.value isn't a key of a card. Did you mean 'values'?",
        ),
        (
            "[inputs]\nx = { values = [] }",
            2,
            "inputs.x.values is [], but should list numbers",
        ),
        (
            "[inputs]\nx = { values = [[1]] }",
            2,
            "inputs.x.values is [[1]], but should list numbers",
        ),
        (
            "[inputs]\nx = { values = 1, low = 0 }",
            2,
            "inputs.x.low has no effect beside 'values'",
        ),
        (
            "[inputs]\nx = { low = true }",
            2,
            "inputs.x.low is True, but should be a finite number",
        ),
        (
            "[inputs]\nx = { high = inf }",
            2,
            "inputs.x.high is inf, but should be a finite number",
        ),
        ("[inputs]\nx = { low = 2, high = 1 }", 2, "inputs.x.low is 2, above high = 1"),
        (
            "[inputs]\nx = { shapes = [1, 3] }",
            2,
            "inputs.x.shapes is [1, 3], but should list shapes",
        ),
        (
            "[inputs]\nx = { shapes = [[1]], sizes = { 0 = 1 } }",
            2,
            "inputs.x.sizes has no effect beside 'shapes'",
        ),
        (
            "[inputs]\nx = { sizes = { n = -1 } }",
            2,
            "inputs.x.sizes.n is -1, but should be a size or a list of sizes",
        ),
        (
            "[inputs]\nx = { sizes = { n = [] } }",
            2,
            "inputs.x.sizes.n is [], but should be a size or a list of sizes",
        ),
        ("[inputs]\nx = { by = 'y' }", 2, "inputs.x.by has no effect without 'sizes'"),
        (
            "[inputs]\nx = { by = 'y', sizes = { 1 = 2 } }",
            2,
            "inputs.x.by is 'y', which has to be another input",
        ),
        (
            "[inputs]\ny = { values = [1, 2] }\nx = { by = 'y', sizes = { 1 = 2 } }",
            3,
            "inputs.x.sizes and the values of 'y' don't match: 2 has no size for it",
        ),
        (
            "[inputs]\ny = { values = [1] }\nx = { by = 'y', sizes = { 1 = 2, 3 = 4 } }",
            3,
            "inputs.x.sizes and the values of 'y' don't match: 3 isn't one of its values",
        ),
        ("[tolerance]\natol = 1", 2, "tolerance.atol is 1, but should be a table"),
        ("[tolerance.out]\nabs = 1", 2, "tolerance.out.abs isn't a key of a card."),
        (
            "[tolerance.'*']\nrtol = -1",
            2,
            "tolerance.*.rtol is -1, but a tolerance can't be negative",
        ),
        (
            "[tolerance.out]\nsigned_zero = 0",
            2,
            "tolerance.out.signed_zero is 0, but should be true or false",
        ),
        (
            '[recorded]\noutputs = "notes"',
            2,
            "recorded.outputs is 'notes'. Did you mean 'note'?",
        ),
        ("[sensitivity]\nleast = 1", 2, "sensitivity.least isn't a key of a card."),
        (
            "[sensitivity]\nminimum = 95",
            2,
            "sensitivity.minimum is 95, but a share of the planted faults lies between",
        ),
        (
            "[known_failure]\nstage = 'run'",
            1,
            "known_failure is a table, but should be an array of tables",
        ),
        (
            FAILURE.replace("run", "runs"),
            4,
            "known_failure[0].stage is 'runs'. Did you mean 'run'?",
        ),
        (FAILURE.replace("run", "done"), 4, "known_failure[0].stage is 'done'."),
        (
            FAILURE + FAILURE.replace("= [", "= [' ', "),
            9,
            "known_failure[1].variants holds ' ', which isn't an id",
        ),
        (
            FAILURE.replace("versions", "version"),
            6,
            "known_failure[0].version isn't a key of a card. Did you mean",
        ),
        (
            FAILURE.replace('onnxslim = "0.1"', ""),
            6,
            "known_failure[0].versions is missing: name the distribution",
        ),
        (
            FAILURE.replace('"0.1"', "0.1"),
            6,
            "known_failure[0].versions.onnxslim is 0.1, but should be text",
        ),
        (FAILURE.replace("reason", "# reason"), 2, "known_failure[0].reason is missing"),
    ],
)
def test_a_bad_card_is_refused_with_its_file_line_and_key(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CardError, match=re.escape(f"card {path}, line {line}: {message}")):
        cards.read(path)


def test_what_isnt_toml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(
        CardError, match=r"My-Voice\.model\.toml isn't TOML: .*line 2, column"
    ):
        read(tmp_path, "[model]\nlicense = MIT")


def test_a_key_behind_a_heading_is_told_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(
        CardError, match=r"put `seed = 0` on a line of its own, below `\[random\]`"
    ):
        read(tmp_path, "[random] seed = 0\n")


def test_a_seed_is_a_whole_number_and_part_of_what_the_card_demands(tmp_path: Path) -> None:
    plain, seeded = read(tmp_path, ""), read(tmp_path, "[random]\nseed = 0\n")
    assert (plain.random_seed, seeded.random_seed) == (None, 0)
    assert plain.digest() != seeded.digest()
    for wrong in ("-1", "0.5"):
        with pytest.raises(CardError, match="should be a whole number from 0"):
            read(tmp_path, f"[random]\nseed = {wrong}\n")


def test_what_isnt_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.model.toml").write_bytes(b"[model]\nlicense = '\xff'")
    with pytest.raises(CardError, match="isn't UTF-8 text"):
        cards.read(tmp_path / "a.model.toml")


def test_a_card_that_isnt_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="can't be read: No such file"):
        cards.read(tmp_path / "a.model.toml")


def test_a_file_name_without_a_name_in_it_gets_one_by_its_hash(tmp_path: Path) -> None:
    assert cards.read(write(tmp_path, "", "-.model.toml")).name.startswith("model_")


def test_a_tolerance_can_hold_for_one_precision_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.model.toml"
    bounds = "[tolerance.y]\nrtol = 1e-3\natol = 0\n[tolerance.y.fp16]\natol = 0.02\n"
    path.write_text(f'[source]\npath = "m.onnx"\n{bounds}')

    spec = cards.read(path).tolerance["y"]

    assert spec.rtol == 1e-3
    assert spec.by_precision["fp16"].atol == 0.02
    assert tuple(Precision) == cards.PRECISIONS
