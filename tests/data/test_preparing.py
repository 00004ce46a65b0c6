"""`feldman prepare`: arrays that depend on the images alone, whatever happens while they are made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from feldman.data import preparing
from feldman.data.image_decoding import decode_image
from feldman.data.image_folder import MEANS
from feldman.data.load import load_dataset
from feldman.data.preparing import PrepareOptions, prepare_images
from feldman.errors import DatasetError, FeldmanError, InputError, StorageError, StoreBusyError
from feldman.experiment import DatasetSection
from tests.commands import Commands, snapshot
from tests.conftest import cli_environment
from tests.data.photographs import damage, write_photographs
from tests.runs import wait_until

pytestmark = pytest.mark.usefixtures("as_shipped")

OPTIONS = PrepareOptions(size=8, resize_short=10, num_workers=1)

SLOWLY = """
import os, time
import feldman.data.preparing
from feldman.cli.app import main

feldman.data.preparing.SHARD_IMAGES = 4
sync = os.fsync
os.fsync = lambda descriptor: time.sleep(0.01) or sync(descriptor)
main()
"""
"""The command with small shards, each a fiftieth of a second: time enough to be killed in."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SHARD_IMAGES", 4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "source")


def prepared(source: Path, folder: Path, **changes: Any) -> Path:
    prepare_images(source, folder, replace(OPTIONS, **changes))
    return folder


def test_arrays_hold_the_images_in_the_order_of_the_lists_beside_them(source: Path, tmp_path: Path) -> None:
    summary = prepare_images(source, tmp_path / "made", OPTIONS)
    assert (summary.num_train, summary.num_test, summary.num_classes, summary.skipped) == (12, 6, 2, {})
    for part, label_of in (("train", {"n01": 0, "n02": 1}), ("test", {"n01": 0, "n02": 1})):
        x, y = (np.load(tmp_path / "made" / f"{name}_{part}.npy", mmap_mode="r") for name in "xy")
        files = (tmp_path / "made" / f"files_{part}.txt").read_text().splitlines()
        assert len(x) == len(y) == len(files)
        for pixels, label, file in zip(x, y, files, strict=True):
            np.testing.assert_array_equal(pixels, decode_image((source / file).read_bytes(), OPTIONS.geometry))
            assert label == label_of[file.split("/")[1]]
    facts = json.loads((tmp_path / "made" / "prepared.json").read_text())
    assert (facts["num_train"], facts["num_test"], facts["size"], facts["skipped"]) == (12, 6, 8, {})
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "class_names.npy", "files_test.txt", "files_train.txt", "prepared.json", "x_test.npy", "x_train.npy", "y_test.npy",
        "y_train.npy",
    ]  # fmt: skip
    assert not (tmp_path / "made.partial").exists()


@pytest.mark.parametrize("name", ["image-folder", "arrays"])
def test_the_folder_opens_memory_mapped(source: Path, tmp_path: Path, name: str) -> None:
    folder = prepared(source, tmp_path / "made")
    dataset = load_dataset(DatasetSection(name=name, path=str(folder)))
    assert isinstance(dataset.x_train, np.memmap)
    assert dataset.x_train.shape == (12, 8, 8, 3)
    assert dataset.class_names == ("n01", "n02")
    assert dataset.shift == (MEANS if name == "image-folder" else 0.0)


def test_the_number_of_workers_and_other_folders_change_no_byte(source: Path, tmp_path: Path) -> None:
    assert snapshot(prepared(source, tmp_path / "one")) == snapshot(prepared(source, tmp_path / "two", num_workers=2))


def test_damaged_images_are_refused_by_name_and_left_out_when_asked(source: Path, tmp_path: Path) -> None:
    damage(source / "train" / "n01" / "002.JPEG")
    (source / "val" / "n02" / "000.jpg").write_bytes(b"no image")
    with pytest.raises(FeldmanError) as caught:
        prepared(source, tmp_path / "made")
    assert not isinstance(caught.value, InputError)
    assert str(caught.value).startswith(f"2 of 18 images cannot be decoded: {source}/train/n01/002.JPEG (OSError: ")
    assert str(caught.value).endswith("type the same command again, or leave them out with --skip-damaged")
    assert not (tmp_path / "made").exists()
    listed = (tmp_path / "made.partial" / "damaged.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == ["train/n01/002.JPEG", "val/n02/000.jpg"]
    summary = prepare_images(source, tmp_path / "made", replace(OPTIONS, skip_damaged=True))
    assert list(summary.skipped) == ["train/n01/002.JPEG", "val/n02/000.jpg"]
    assert (summary.num_train, summary.num_test) == (11, 5)
    assert "train/n01/002.JPEG" not in (tmp_path / "made" / "files_train.txt").read_text()
    assert np.load(tmp_path / "made" / "y_test.npy").tolist() == [0, 0, 0, 1, 1]
    assert snapshot(tmp_path / "made") == snapshot(prepared(source, tmp_path / "at once", skip_damaged=True))


def test_images_that_were_repaired_are_taken_up(source: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(source, tmp_path / "whole")
    damage(source / "train" / "n02" / "003.jpg")
    with pytest.raises(FeldmanError, match="1 of 18 images cannot be decoded"):
        prepared(source, tmp_path / "made")
    shutil.copy(whole / "train" / "n02" / "003.jpg", source / "train" / "n02" / "003.jpg")
    found, expected = snapshot(prepared(source, tmp_path / "made")), snapshot(prepared(source, tmp_path / "at once"))
    assert found == expected


def interrupted(source: Path, folder: Path, after: int, **changes: Any) -> None:
    """Prepare, and stop when so many images are done."""

    def tell(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_images(source, folder, replace(OPTIONS, **changes), tell)


@pytest.mark.parametrize("after", [0, 4, 12, 16, 18])
@pytest.mark.parametrize("torn", [False, True])
def test_a_process_that_was_stopped_goes_on_and_no_byte_differs(
    source: Path, tmp_path: Path, after: int, torn: bool
) -> None:
    expected = snapshot(prepared(source, tmp_path / "at once"))
    interrupted(source, tmp_path / "made", after)
    working = tmp_path / "made.partial"
    if torn:  # as a kill leaves it: a shard whose pixels are half written, and one whose line is
        for name, content in (
            ("x_train.npy", b"half a shard"),
            ("x_test.npy", b"x"),
            ("shards.jsonl", b'{"part": "tr'),
        ):
            with (working / name).open("ab") as file:
                file.write(content)
    told: list[int] = []
    prepare_images(source, tmp_path / "made", OPTIONS, lambda done, total: told.append(done))
    assert told[0] == after, "what was done is not done again"
    assert snapshot(tmp_path / "made") == expected


def num_committed(folder: Path) -> int:
    journal = folder / "made.partial" / "shards.jsonl"
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0


def kill_when_committed(command: list[str], folder: Path, num_shards: int) -> None:
    """Run it until so many shards are committed, then kill it alone: its workers are to notice."""
    process = subprocess.Popen(command, cwd=folder, env=cli_environment(), stderr=subprocess.PIPE)
    wait_until(lambda: process.poll() is not None or num_committed(folder) >= num_shards, "shards are committed")
    assert process.poll() is None, process.communicate()
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    wait_until(lambda: not any(worker.is_running() for worker in workers), "its workers end with it")


def test_kill_9_at_any_moment_costs_nothing_but_the_shards_in_flight(tmp_path: Path) -> None:
    source = write_photographs(tmp_path / "source", num_train=40, num_test=10)
    expected = snapshot(prepared(source, tmp_path / "at once"))
    command = [
        sys.executable,
        "-c",
        SLOWLY,
        "prepare",
        str(source),
        "-o",
        "made",
        "--size",
        "8",
        "--resize-short",
        "10",
    ]
    for num_shards in (1, 5, 12):
        kill_when_committed(command, tmp_path, num_shards)
    assert (tmp_path / "made.partial").exists(), "killed before its end"
    done = subprocess.run(command, cwd=tmp_path, env=cli_environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "made") == expected


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    source = write_photographs(tmp_path / "source", num_train=100)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "prepare", str(source), "-o", "made", "--workers", "1"],
        cwd=tmp_path,
        env=cli_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: num_committed(tmp_path) > 0, "a shard is committed")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "feldman: interrupted; what is prepared is safe, and the same command goes on"
    assert "Traceback" not in told


def test_another_plan_does_not_go_on_in_the_same_folder(source: Path, tmp_path: Path) -> None:
    interrupted(source, tmp_path / "made", 8)
    with pytest.raises(InputError, match=r"was begun otherwise \(size: 8 there, 9 now\); give what it was begun with"):
        prepared(source, tmp_path / "made", size=9)
    (source / "train" / "n01" / "000.jpg").unlink()
    with pytest.raises(InputError, match=r"num_train_files: 12 there, 11 now; files_sha256: "):
        prepared(source, tmp_path / "made")


def test_one_process_at_a_time(source: Path, tmp_path: Path) -> None:
    def second(done: int, total: int) -> None:
        with pytest.raises(StoreBusyError, match=r"another `feldman prepare` is at work in '.*made\.partial'"):
            prepared(source, tmp_path / "made")

    prepare_images(source, tmp_path / "made", OPTIONS, second)


def test_what_is_there_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    made = prepared(source, tmp_path / "made")
    before = snapshot(made)
    with pytest.raises(DatasetError, match="holds prepared images already, and nothing is overwritten"):
        prepared(source, made)
    with pytest.raises(DatasetError, match=r"is not empty \(it holds train, val\) and nothing is overwritten"):
        prepared(source, source)
    with pytest.raises(DatasetError, match="is there already and is no folder"):
        prepared(source, made / "x_train.npy")
    assert snapshot(made) == before
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"other\.partial' holds other things; remove it, or choose another folder"):
        prepared(source, tmp_path / "other")


def test_an_empty_folder_and_a_link_to_one_are_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert (prepared(source, tmp_path / "link") / "prepared.json").exists()
    assert (tmp_path / "empty" / "prepared.json").exists()


def test_a_working_folder_that_lost_bytes_is_refused(source: Path, tmp_path: Path) -> None:
    interrupted(source, tmp_path / "made", 8)
    array = tmp_path / "made.partial" / "x_train.npy"
    os.truncate(array, array.stat().st_size - 1)
    with pytest.raises(FeldmanError, match=r"x_train\.npy is shorter than what was written to it; remove the folder"):
        prepared(source, tmp_path / "made")
    (tmp_path / "made.partial" / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"its plan\.json cannot be read"):
        prepared(source, tmp_path / "made")


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("feldman.data.image_arrays.os.fsync", full)
        with pytest.raises(
            StorageError, match="No space left on device; what is prepared is safe, and the same command"
        ):
            prepared(source, tmp_path / "made")
    assert snapshot(prepared(source, tmp_path / "made")) == snapshot(prepared(source, tmp_path / "at once"))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"size": 0}, "--size must be 1 .. 4096; found 0"),
        ({"size": 5000}, "--size must be 1 .. 4096; found 5000"),
        ({"resize_short": 7}, "--resize-short is what is cut to --size, so it must be 8 .. 4096; found 7"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], told: str) -> None:
    with pytest.raises(DatasetError) as caught:
        replace(OPTIONS, **sizes)
    assert str(caught.value) == told


def test_an_unprepared_folder_says_what_to_type(source: Path, tmp_path: Path) -> None:
    def refusal(path: Path | None) -> str:
        with pytest.raises(DatasetError) as caught:
            load_dataset(DatasetSection(name="image-folder", path=None if path is None else str(path)))
        return str(caught.value)

    assert f"with `feldman prepare {source} -o {source}-64 --size 64`, and set dataset.path" in refusal(source)
    assert "does not exist; `feldman prepare IMAGES -o IMAGES-64 --size 64` makes one" in refusal(tmp_path / "nothing")
    assert "is no folder that `feldman prepare` has made" in refusal(tmp_path)
    assert refusal(None) == "dataset 'image-folder' needs dataset.path: a folder that `feldman prepare` has made"
    interrupted(source, tmp_path / "made", 8)
    assert "is not finished; type the `feldman prepare` command that began it again" in refusal(tmp_path / "made")


def test_the_command_tells_what_it_made_for_people_and_as_json(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feldman = Commands(tmp_path, capsys)
    damage(source / "train" / "n01" / "001.png")
    (source / "train" / "n01" / "notes.txt").write_text("x")
    answer = feldman("prepare", "source", "-o", "made", "--size", "8", "--skip-damaged")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == "made: 11 training and 6 test images (of val/) of 2 classes, 8 x 8"
    assert lines[1].startswith("  left out  train/n01/001.png: ")
    assert lines[2:] == [
        "  ignored   1 files that are no images by their names",
        '  next      [dataset] name = "image-folder", path = "made"',
    ]
    as_json = json.loads(feldman("prepare", "source", "-o", "other", "--skip-damaged", "--json").out)
    assert list(as_json) == [
        "folder", "source", "held_out", "num_train", "num_test", "num_classes", "size", "num_ignored", "skipped",
    ]  # fmt: skip
    assert (as_json["num_train"], as_json["size"], list(as_json["skipped"])) == (11, 64, ["train/n01/001.png"])


def test_progress_is_told_in_images_shard_by_shard(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare_images(source, tmp_path / "made", OPTIONS, lambda done, total: told.append((done, total)))
    assert told == [(done, 18) for done in (0, 4, 8, 12, 16, 18)]
