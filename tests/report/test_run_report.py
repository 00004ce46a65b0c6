"""A run's page, as a file: what it says is what the tables and the data set hold, and nothing on it can run or be fetched."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldman.data.load import load_dataset
from feldman.data.preparing import PrepareOptions, prepare_images
from feldman.errors import DatasetError, QueryError
from feldman.estimates.selection import PairSelection
from feldman.exchange.importing import ImportOptions, import_run
from feldman.experiment import DatasetSection, Experiment
from feldman.job import run as train_run
from feldman.report.page import embedded_json
from feldman.report.page_file import check_page_file, write_page
from feldman.report.run_report import make_report
from feldman.report.selection import PageLimits
from feldman.results.estimation import write_estimates
from feldman.results.tables import read_facts
from feldman.trials.rundir import run_paths
from feldman.trials.store import TrialStore
from tests.data.photographs import write_photographs
from tests.object_store import memory_path
from tests.pages import CLASS_NAMES, image_arrays, image_run, page_data, tile, vector_run

Data = dict[str, Any]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images with names that try to break out; not to be written to."""
    return image_run(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def page(images: Path) -> str:
    return make_report(run_paths(images), PageLimits())[1]


def of(run: Path, **limits: Any) -> tuple[Data, str]:
    page = make_report(run_paths(run), PageLimits(**limits))[1]
    return page_data(page), page


def test_values_are_those_of_the_tables(images: Path, page: str) -> None:
    data = page_data(page)
    train, pairs = data["train"], data["pairs"]
    table = {row["train_index"]: row for row in pq.read_table(images / "memorization.parquet").to_pylist()}
    names = {"label": "label", "value": "memorization", "low": "ci_low", "high": "ci_high", "numIn": "num_in",
             "numOut": "num_out", "correctIn": "correct_in", "correctOut": "correct_out"}  # fmt: skip
    for row, index in enumerate(train["index"]):
        for name, column in names.items():
            assert train[name][row] == pytest.approx(table[index][column], abs=5.1e-5), (index, name)
    influence = {
        (row["train_index"], row["test_index"]): row for row in pq.read_table(images / "influence.parquet").to_pylist()
    }
    for k, (row, test_row) in enumerate(zip(pairs["train"], pairs["test"], strict=True)):
        expected = influence[train["index"][row], data["test"]["index"][test_row]]
        for name, column in (("influence", "influence"), ("low", "ci_low"), ("high", "ci_high")):
            assert pairs[name][k] == pytest.approx(expected[column], abs=5.1e-5)
        assert pairs["q"][k] == pytest.approx(expected["q_value"], rel=0.06)
    assert len(pairs["train"]) == len(influence) > 50, "all pairs of a small table are there"
    assert pairs["influence"] == sorted(pairs["influence"], reverse=True)
    counts = np.array(data["histogram"]["counts"])
    assert counts.sum(axis=1).tolist() == [30, 30, 30]
    in_table = [sum(test == index for _, test in influence) for index in data["test"]["index"]]
    assert data["test"]["pairs"] == in_table


def test_pictures_are_the_examples_that_the_rows_name(page: str) -> None:
    data, arrays = page_data(page), image_arrays()
    pictures = data["pictures"]
    for part in ("train", "test"):
        assert data[part]["index"]
        for index, slot in zip(data[part]["index"], pictures[part], strict=True):
            np.testing.assert_array_equal(tile(pictures, slot), arrays[f"x_{part}"][index])


def test_no_name_becomes_markup_and_the_page_lets_nothing_else_run(page: str) -> None:
    data = page_data(page)
    assert tuple(data["classes"]) == CLASS_NAMES
    assert page.count("<script") == page.count("</script>") == 2
    assert "alert(1)" not in page.replace("\\u003cscript\\u003ealert(1)\\u003c/script\\u003e", "")
    assert "<img" not in page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1))  # type: ignore[union-attr]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", rules["script-src"])
    assert "unsafe" not in policy
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name space, which nothing fetches"


def test_a_page_tells_no_path_of_the_machine(images: Path, page: str) -> None:
    assert str(images.parent) not in page
    assert str(Path.home()) not in page
    assert "nearest_centroid" in page


def test_the_same_run_has_the_same_page(images: Path, page: str) -> None:
    assert make_report(run_paths(images), PageLimits())[1] == page


@settings(max_examples=20)
@given(
    st.recursive(
        st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(), c, max_size=3),
    )
)
def test_embedded_json_is_the_document_and_ends_no_element(value: Any) -> None:
    text = str(embedded_json({"value": value}))
    assert json.loads(text) == {"value": value}
    assert not set("<>&\u2028\u2029") & set(text)


def test_limits_choose_what_is_shown_and_the_page_says_so(images: Path) -> None:
    data, page = of(images, per_class=2, top_pairs=3, pairs_per_example=1)
    memorized = [row for row, typical in enumerate(data["train"]["typical"]) if not typical]
    by_class = [
        max(data["train"]["value"][row] for row in memorized if data["train"]["label"][row] == label)
        for label in range(3)
    ]
    table = pq.read_table(images / "memorization.parquet").to_pylist()
    for label in range(3):
        assert by_class[label] == pytest.approx(
            max(row["memorization"] for row in table if row["label"] == label), abs=1e-4
        )
    assert sum(data["train"]["typical"]) == 3
    assert 3 <= len(data["pairs"]["train"]) < 50
    # the strongest pair of each memorized example and of each test example is there, wherever the table has one
    influence = pq.read_table(images / "influence.parquet").to_pylist()
    named = {part: [data[part]["index"][row] for row in data["pairs"][part]] for part in ("train", "test")}
    shown = set(zip(named["train"], named["test"], strict=True))
    for index in data["test"]["index"]:
        best = min((-row["influence"], row["train_index"]) for row in influence if row["test_index"] == index)
        assert (best[1], index) in shown
    assert "the 2 most memorized training examples, but no more than half of it, and 1 typical ones" in page
    assert f"{len(shown)} of {len(influence)} pairs" in page


def test_pictures_beyond_the_limit_are_left_out_the_last_first_and_the_page_says_so(images: Path) -> None:
    whole, page = of(images)
    size = len(page.encode()) / 1e6
    sheets = sum(map(len, whole["pictures"]["sheets"])) / 1e6
    data, page = of(images, max_megabytes=size - sheets + 0.004)
    assert len(page.encode()) / 1e6 <= size - sheets + 0.004
    assert data["pictures"]["sheets"] == []
    assert set(data["pictures"]["train"]) == {-1}
    assert re.search(r"The pictures of \d+ of the \d+ examples on this page are left out, to keep it below", page)
    with pytest.raises(QueryError, match=r"--max-megabytes allows 0\.01; show less with --top-pairs"):
        make_report(run_paths(images), PageLimits(max_megabytes=0.01))


def test_inputs_that_are_no_images_are_there_as_numbers(tmp_path: Path) -> None:
    run = vector_run(tmp_path)
    data, _ = of(run)
    dataset = load_dataset(TrialStore.open(run / "trials.zarr").experiment.dataset)
    assert (data["pictures"]["kind"], data["pictures"]["numValues"]) == ("values", 5)
    for part, x in (("train", dataset.x_train), ("test", dataset.x_test)):
        np.testing.assert_allclose(data["pictures"][part], x[data[part]["index"]], rtol=6e-4)


def test_a_run_of_a_part_and_with_random_labels_shows_its_own_examples(tmp_path: Path) -> None:
    run = image_run(tmp_path, name="arrays", path=str(tmp_path / "images.npz"), num_train=60, random_labels=9)
    data, page = of(run, per_class=30)
    dataset = load_dataset(TrialStore.open(run / "trials.zarr").experiment.dataset)
    assert dataset.random_labels is not None
    changed = {
        index
        for index, label, was in zip(
            data["train"]["index"], data["train"]["label"], data["train"]["original"], strict=True
        )
        if label != was
    }
    assert changed == set(dataset.random_labels.train_index.tolist())
    assert data["train"]["label"] == dataset.y_train[data["train"]["index"]].tolist()
    for index, slot in zip(data["train"]["index"], data["pictures"]["train"], strict=True):
        np.testing.assert_array_equal(tile(data["pictures"], slot), dataset.x_train[index])
    assert "9 training examples" in page


def test_images_of_a_folder_are_named_by_their_files(tmp_path: Path) -> None:
    write_photographs(tmp_path / "images", num_train=8, num_test=4)
    prepare_images(tmp_path / "images", tmp_path / "arrays", PrepareOptions(size=8, resize_short=10, num_workers=1))
    files = (tmp_path / "arrays" / "files_train.txt").read_text().splitlines()
    assert len(files) == 16
    section = {"name": "image-folder", "path": str(tmp_path / "arrays"), "num_train": 10}
    learner = {"name": "tests.learners:nearest_centroid"}
    experiment = Experiment.model_validate(
        {"dataset": section, "learner": learner, "subsets": {"num_trials": 20}, "execution": {"executor": "in-process"}}
    )
    train_run(experiment, tmp_path / "run")
    data, _ = of(tmp_path / "run")
    whole = np.load(tmp_path / "arrays" / "x_train.npy")
    assert data["train"]["file"]
    for file, slot in zip(data["train"]["file"], data["pictures"]["train"], strict=True):
        np.testing.assert_array_equal(tile(data["pictures"], slot), whole[files.index(file)])
    (tmp_path / "arrays" / "files_train.txt").write_text("one.jpg\n")
    assert of(tmp_path / "run")[0]["train"]["file"] is None, "a list of another length names nothing"


def test_without_its_data_set_a_run_has_a_page_without_pictures(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(images, run)
    store = TrialStore.open(run / "trials.zarr")
    moved = DatasetSection(name="arrays", path=str(tmp_path / "gone.npz"))
    store.record_circumstances(store.experiment.model_copy(update={"dataset": moved}))
    without = f"make the report without pictures: feldman report {run} --no-pictures"
    with pytest.raises(DatasetError, match=rf"gone.npz' does not exist; .*{without}"):
        make_report(run_paths(run), PageLimits())
    np.savez(
        tmp_path / "gone.npz", allow_pickle=False, **image_arrays() | {"x_test": np.zeros((40, 6, 5, 3), np.uint8)}
    )
    with pytest.raises(DatasetError, match=rf"is not what '{run}' was trained on: .*{without}"):
        make_report(run_paths(run), PageLimits())
    _, page = make_report(run_paths(run), PageLimits(), pictures=False)
    assert page_data(page)["pictures"] is None


def test_tables_of_different_trials_are_not_put_on_one_page(images: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", image_run(tmp_path / "other")
    shutil.copytree(images, run)
    store = TrialStore.open(other / "trials.zarr")
    store.withdraw_block(0)
    write_estimates(run_paths(other), selection=PairSelection())
    (run / "influence.parquet").write_bytes((other / "influence.parquet").read_bytes())
    with pytest.raises(QueryError, match="are of other trials"):
        make_report(run_paths(run), PageLimits())
    _, page = make_report(run_paths(other), PageLimits())
    assert "The run is not finished: 72 of 80 trials are there." in page


def test_a_table_without_pairs_and_one_of_undefined_values_have_a_page(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(images, run)
    write_estimates(run_paths(run), selection=PairSelection(min_influence=1.0))
    data, _ = of(run)
    assert (data["pairs"]["train"], data["test"]["index"]) == ([], [])
    store = TrialStore.open(run / "trials.zarr")
    for block in store.committed_blocks()[1:]:
        store.withdraw_block(block)
    write_estimates(run_paths(run), selection=PairSelection())
    table = pq.read_table(run / "memorization.parquet")["memorization"].to_numpy()
    assert np.isnan(table).any(), "8 trials leave some example in all or in none"
    data, _ = of(run)
    assert sum(data["histogram"]["undefined"]) == np.isnan(table).sum()
    assert None not in data["train"]["value"] or data["pairs"]["train"]


def test_imported_tables_have_a_page_of_what_they_tell(tmp_path: Path) -> None:
    np.savez(tmp_path / "pairs.npz", tr_idx=[7, 3, 7], tt_idx=[4, 9, 1], infl=[0.5, 0.25, 0.2], mem=[0.75, 0.5, 0.75])
    import_run(tmp_path / "pairs.npz", tmp_path / "run", ImportOptions())
    assert read_facts(tmp_path / "run" / "influence.parquet", tmp_path / "run").num_trials is None
    data, page = of(tmp_path / "run")
    assert data["classes"] == ["class not told"]
    assert (data["train"]["index"], data["train"]["value"]) == ([3, 7], [0.5, 0.75])
    assert data["train"]["low"] == [None, None]
    assert data["train"]["numIn"] == [-1, -1]
    assert data["pictures"] is None
    assert "from pairs.npz" in page


OURS = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="feldman report 0.0.1">'


def test_only_a_page_is_replaced_on_a_disk_and_in_an_object_store(tmp_path: Path, page: str) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "nothing")
    bucket = memory_path()
    for place in (tmp_path, bucket):
        write_page(page, place / "report.html")
        assert (place / "report.html").read_bytes() == page.encode()
        (place / "ours.html").write_bytes(OURS.encode())
        write_page(page, place / "ours.html")
        assert (place / "ours.html").read_bytes() == page.encode()
        (place / "theirs.html").write_bytes(b"<!doctype html><p>by hand")
        for name in ("theirs.html", *(("folder.html", "link.html") if place is tmp_path else ())):
            with pytest.raises(QueryError, match="was not made by `feldman report`, and nothing else is overwritten"):
                check_page_file(place / name)
            with pytest.raises(QueryError, match="was not made by"):
                write_page(page, place / name)
        assert (place / "theirs.html").read_bytes() == b"<!doctype html><p>by hand"
    assert not list(tmp_path.glob("*.partial")), "nothing is left behind"
    assert not list(tmp_path.glob(".*"))
