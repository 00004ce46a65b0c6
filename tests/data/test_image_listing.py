"""Folders of images: what is found, in which order, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feldman.data.image_listing import list_images
from feldman.errors import DatasetError
from tests.data.photographs import picture, write_photographs

pytestmark = pytest.mark.usefixtures("as_shipped")


def test_files_are_sorted_by_class_and_name_and_labels_are_the_folders_numbers(tmp_path: Path) -> None:
    write_photographs(tmp_path, num_train=3, num_test=1, classes=("zebra", "ant", "Bee"))
    listing = list_images(tmp_path)
    assert listing.class_names == ("Bee", "ant", "zebra")
    assert listing.train.files[:4] == (
        "train/Bee/000.jpg", "train/Bee/001.png", "train/Bee/002.JPEG", "train/ant/000.jpg",
    )  # fmt: skip
    assert listing.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert listing.test.files == ("val/Bee/000.jpg", "val/ant/000.jpg", "val/zebra/000.jpg")
    assert listing.held_out == "val"


def test_folders_below_a_class_belong_to_it_and_hidden_and_other_files_do_not(tmp_path: Path) -> None:
    write_photographs(tmp_path, num_train=1)
    (tmp_path / "train" / "n01" / "images").mkdir()
    picture(0).save(tmp_path / "train" / "n01" / "images" / "x.png")
    for ignored in ("n01/boxes.txt", "n01/.hidden.png", "readme.txt"):
        (tmp_path / "train" / ignored).write_text("x")
    (tmp_path / "train" / ".cache").mkdir()
    listing = list_images(tmp_path)
    assert listing.train.files == ("train/n01/000.jpg", "train/n01/images/x.png", "train/n02/000.jpg")
    assert listing.num_ignored == 1


def test_test_is_held_out_where_it_has_class_folders_else_val(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    (tmp_path / "test").mkdir()
    picture(0).save(tmp_path / "test" / "unlabelled.png")  # as ImageNet's own
    assert list_images(tmp_path).held_out == "val"
    (tmp_path / "test" / "n02").mkdir()
    picture(0).save(tmp_path / "test" / "n02" / "x.png")
    assert list_images(tmp_path).held_out == "test"
    assert list_images(tmp_path).test.labels.tolist() == [1]


def test_a_file_may_name_the_classes_as_imagenets_does(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    mapping = tmp_path / "LOC_synset_mapping.txt"
    mapping.write_text("n01 tench, Tinca tinca\nn02 goldfish\nn03 of another set\n")
    assert list_images(tmp_path, mapping).class_names == ("tench, Tinca tinca", "goldfish")
    mapping.write_text("n01 tench\n")
    with pytest.raises(
        DatasetError, match=r"names no class for 1 folders: n02; expected a line each, the folder and its"
    ):
        list_images(tmp_path, mapping)
    mapping.write_bytes(b"n01 \xff\n")
    with pytest.raises(DatasetError, match=r"is not a text file in UTF-8"):
        list_images(tmp_path, mapping)
    with pytest.raises(DatasetError, match=r"cannot read .*nothing: No such file"):
        list_images(tmp_path, tmp_path / "nothing")


def refusal(source: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        list_images(source)
    return str(caught.value)


def test_what_is_no_source_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    assert "is no folder; expected one with train/CLASS/*.jpg and test/CLASS/*.jpg" in refusal(tmp_path / "nothing")
    assert "has no train/ with a folder a class in it; it holds nothing" in refusal(tmp_path)
    write_photographs(tmp_path)
    (tmp_path / "val").rename(tmp_path / "holdout")
    assert "has neither test/ nor val/ with a folder a class in it" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("It holds holdout, train")
    (tmp_path / "holdout").rename(tmp_path / "test")
    (tmp_path / "test" / "n03").mkdir()
    assert "has 1 classes that train/ lacks: n03; move them away" in refusal(tmp_path)
    (tmp_path / "train" / "n03").mkdir()
    assert f"'{tmp_path / 'train' / 'n03'}' holds no image (.bmp, .gif, " in refusal(tmp_path)


@pytest.mark.parametrize("name", [b"a\nb.png", b"\xff.png"])
def test_a_name_that_is_no_line_of_text_is_refused(tmp_path: Path, name: bytes) -> None:
    write_photographs(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path / "train" / "n01") + b"/" + name)).write_bytes(b"x")
    assert "cannot be written down as one line of text; rename the file" in refusal(tmp_path)
