"""Models and external data behind links, and files that are no models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_harness.cards.unlinked import unlinked
from onnx_harness.errors import ModelError
from onnx_harness.model.file import Model
from onnx_harness.model.links import store_of
from tests.models import linear, save, with_external_data


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNX_HARNESS_CACHE", str(tmp_path / "cache"))


def external(folder: Path) -> Path:
    """A model with external data beside it, both plain files."""
    folder.mkdir(parents=True)
    return with_external_data(folder / "model.onnx", "model.onnx_data")


def hub(folder: Path, data_blob: str = "blobs/bbbb") -> Path:
    """The layout of a model hub's cache: a snapshot of links into a store of blobs."""
    plain = external(folder / "plain")
    snapshot, blobs = (
        folder / "models--acme--net/snapshots/0123abcd0123abcd0123abcd",
        folder / "models--acme--net/blobs",
    )
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shutil.copy(plain, blobs / "aaaa")
    shutil.copy(plain.with_name("model.onnx_data"), folder / "models--acme--net" / data_blob)
    (snapshot / "model.onnx").symlink_to("../../blobs/aaaa")
    (snapshot / "model.onnx_data").symlink_to(f"../../{data_blob}")
    return snapshot / "model.onnx"


def test_a_model_of_a_hub_is_read_through_its_links_and_has_the_hash_of_the_plain_one(
    tmp_path: Path,
) -> None:
    path = hub(tmp_path)
    copy = unlinked(path)
    assert copy != path
    assert not (copy.parent / "model.onnx_data").is_symlink()
    assert Model(copy).sha256 == Model(tmp_path / "plain/model.onnx").sha256
    assert unlinked(path) == copy  # once for a content
    (path.parent / "test_data_set_0").mkdir()
    assert (unlinked(path).parent / "test_data_set_0").is_dir(), "a set that was added since"
    assert Model(copy).load().graph.initializer[0].raw_data


def test_links_that_have_swapped_their_files_change_the_hash(tmp_path: Path) -> None:
    weights = [np.full(400, value, np.float32) for value in (1, 2)]
    hashes = {}
    for links in ("ab", "ba", "aa"):
        folder = tmp_path / links
        folder.mkdir()
        for blob, weight in zip("ab", weights, strict=True):
            (folder / f"blob_{blob}").write_bytes(weight.tobytes())
        tensors = []
        for name, blob in zip("xy", links, strict=True):
            (folder / f"{name}.bin").symlink_to(f"blob_{blob}")
            tensor = onnx.TensorProto(
                name=name, data_type=onnx.TensorProto.FLOAT, dims=[400]
            )
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=f"{name}.bin")
            tensors.append(tensor)
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
        onnx.save(model, folder / "model.onnx")
        hashes[links] = Model(folder / "model.onnx").sha256
    assert len(set(hashes.values())) == 3


def test_hard_links_and_links_within_the_folder_are_replaced(tmp_path: Path) -> None:
    hard = external(tmp_path / "hard")
    os.link(hard.with_name("model.onnx_data"), tmp_path / "second name")
    linked = external(tmp_path / "linked")
    linked.with_name("model.onnx_data").rename(linked.with_name("real.bin"))
    linked.with_name("model.onnx_data").symlink_to("real.bin")
    for path in (hard, linked):
        assert unlinked(path).parent != path.parent
        Model(unlinked(path)).load()


def test_a_model_without_links_stays_where_it_is(tmp_path: Path) -> None:
    path = external(tmp_path / "plain")
    assert unlinked(path) == path
    assert not (tmp_path / "cache").exists()


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    path = hub(tmp_path, data_blob="config")  # beside the blobs, not among them
    assert unlinked(path) == path
    with pytest.raises(ModelError, match="lies outside the model's folder"):
        _ = Model(path).external_files


def test_a_link_out_of_the_folder_of_a_plain_model_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "plain")
    path.with_name("model.onnx_data").rename(tmp_path / "secret.bin")
    path.with_name("model.onnx_data").symlink_to("../secret.bin")
    with pytest.raises(ModelError, match="lies outside the model's folder"):
        _ = Model(unlinked(path)).external_files


@pytest.mark.parametrize(
    ("target", "store"),
    [
        ("store/net.onnx", "store"),  # a plain folder
        ("repo/.dvc/cache/files/md5/ab/cdef", "repo/.dvc/cache/files/md5"),
        ("repo/.git/annex/objects/Wx/3q/KEY/KEY", "repo/.git/annex/objects"),
        ("ab/net.onnx", "ab"),  # never a folder that holds the named one
    ],
)
def test_a_store_is_the_folder_of_the_target_above_its_shards(
    tmp_path: Path, target: str, store: str
) -> None:
    file = save(linear(), tmp_path / target)
    link = tmp_path / "repo/models/net.onnx"
    link.parent.mkdir(parents=True)
    link.symlink_to(file)
    assert store_of(link) == (tmp_path / store).resolve()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            POINTER.encode(),
            r"m\.onnx is a Git LFS pointer, not the file of 12,345 bytes .*Mend: git lfs pull",
        ),
        (b"", r"m\.onnx is empty \(0 bytes\)"),
        (b"<!DOCTYPE html>\n<title>404</title>", "it is a web page"),
        ("größer\n".encode(), "it is text that begins with 'größer'"),
        (b"PK\x03\x04" + bytes(40), "a zip archive, such as torch.save writes"),
        (
            linear().SerializeToString()[:90],
            r"m\.onnx is truncated, or isn't an ONNX file: its 90 bytes end",
        ),
        (
            bytes(range(255, 0, -1)),
            r"m\.onnx isn't an ONNX file|m\.onnx is truncated, or isn't",
        ),
    ],
)
def test_what_a_file_is_that_is_no_model(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        _ = Model(tmp_path / "m.onnx").skeleton
    assert "Mend: " in str(caught.value)


def test_external_data_that_git_lfs_left_behind_is_told_apart_from_a_cut_file(
    tmp_path: Path,
) -> None:
    path = external(tmp_path / "plain")
    path.with_name("model.onnx_data").write_text(POINTER)
    with pytest.raises(
        ModelError, match=r"'model.onnx_data' is a Git LFS pointer.*git lfs pull"
    ):
        _ = Model(path).external_files


def test_of_a_text_behind_a_link_no_word_is_shown(tmp_path: Path) -> None:
    """The link may have come with the model, and the text be somebody's own."""
    (tmp_path / "notes").write_text("a secret")
    (tmp_path / "m.onnx").symlink_to(tmp_path / "notes")
    with pytest.raises(ModelError, match=r"it is text\. Mend") as caught:
        _ = Model(tmp_path / "m.onnx").skeleton
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_beside_links_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    (tmp_path / "other.onnx").symlink_to(tmp_path / "m.onnx")
    assert unlinked(tmp_path / "m.onnx") == tmp_path / "m.onnx"
