"""What a job takes along, and the command it runs: no cluster is needed to know either."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feldman import shipping
from feldman.errors import InputError, StoreBusyError
from feldman.experiment import Experiment
from feldman.experiment_files import load_experiment
from feldman.shipping import EXPERIMENT_FILE, check_not_written_here, checked_run, job_command, pack
from feldman.trials.rundir import run_paths, writer_lock
from tests.conftest import small_experiment

EXPERIMENT = Experiment.model_validate({"dataset": {"name": "digits"}})
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
SHELL_TRAPS = st.sampled_from(
    ["a b", "it's", '"', "$HOME", "`id`", "$(id)", "\\", "; exit 3", "\n", "*", "~", "#", "&", "--x"]
)


@pytest.fixture(scope="module")
def fake_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `python` that prints what it was given."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


@given(st.lists(TEXTS | SHELL_TRAPS, max_size=4).map(lambda parts: "/" + "/".join(parts)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_shell_hands_the_job_any_run_directory_as_it_was_typed(fake_python: Path, run: str) -> None:
    path = f"{fake_python}:{os.environ['PATH']}"
    ran = subprocess.run(["/bin/sh", "-c", job_command(run)], env={"PATH": path}, capture_output=True, check=True)
    assert ran.stdout.decode().split("\0")[:-1] == [
        "-m", "feldman", "run", EXPERIMENT_FILE, "-o", run, "--address", "auto"
    ]  # fmt: skip


def test_a_relative_run_is_refused_and_a_url_is_left_alone() -> None:
    for run in ("runs/a", "~/runs", "-o", "."):
        with pytest.raises(InputError, match=r"is relative, and .* give -o an absolute path"):
            checked_run(run)
    assert checked_run("s3://bucket/prefix//a/") == "s3://bucket/prefix//a/"
    assert checked_run("/shared//runs/a/") == checked_run("/shared/runs/./a") == "/shared/runs/a"


def test_a_run_that_a_process_of_this_machine_writes_is_refused(tmp_path: Path) -> None:
    with (
        writer_lock(run_paths(tmp_path)),
        pytest.raises(StoreBusyError, match=rf"is being written by process {os.getpid()} on .*; wait for it"),
    ):
        check_not_written_here(str(tmp_path))
    check_not_written_here(str(tmp_path))
    check_not_written_here("s3://bucket/run")


def test_a_path_that_is_of_no_use_on_this_machine_may_be_one_of_the_cluster() -> None:
    check_not_written_here(checked_run("/dev/null/run"))
    check_not_written_here(checked_run("/" + 300 * "a"))
    with pytest.raises(InputError, match="is not a text in UTF-8"):
        checked_run("/a\udcff")


def files(folder: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def packed(
    tmp_path: Path, working_dir: Path | None, experiment: Experiment = EXPERIMENT, package: bool = False
) -> Path:
    target = tmp_path / f"packed-{len(list(tmp_path.glob('packed-*')))}"
    target.mkdir()
    archive = pack(experiment, target, working_dir=working_dir, with_package=package)
    assert archive.num_bytes == archive.path.stat().st_size
    return archive.path


def names(archive: Path) -> set[str]:
    return set(zipfile.ZipFile(archive).namelist())


def test_a_folder_goes_along_without_what_its_ignore_files_name_and_without_histories_and_environments(
    tmp_path: Path,
) -> None:
    mine = files(
        tmp_path / "mine",
        {
            ".gitignore": "*.log\n!keep.log\n/data/\n", ".git/HEAD": "", ".venv/bin/python": "", "learner.py": "",
            "notes.log": "", "keep.log": "", "data/x.npy": "", "pkg/a.py": "", "pkg/data/y.npy": "",
            "pkg/.rayignore": "secret\n", "pkg/secret": "", "pkg/__pycache__/a.pyc": "",
        },
    )  # fmt: skip
    (mine / "loop").symlink_to(mine)
    (mine / "pipe").symlink_to("/dev/zero")
    assert names(packed(tmp_path, mine)) == {
        EXPERIMENT_FILE, ".gitignore", "learner.py", "keep.log", "pkg/a.py", "pkg/data/y.npy", "pkg/.rayignore",
    }  # fmt: skip


def test_equal_content_is_one_archive_whenever_and_wherever_it_was_written(tmp_path: Path) -> None:
    one = files(tmp_path / "one", {"b.py": "b", "a.py": "a"})
    two = files(tmp_path / "two", {"a.py": "a", "b.py": "b"})
    os.utime(two / "a.py", (1, 1))
    assert packed(tmp_path, one).read_bytes() == packed(tmp_path, two).read_bytes()


def test_the_package_goes_along_whole_and_without_caches_unless_the_folder_has_it(tmp_path: Path) -> None:
    root = Path(shipping.__file__).parent
    sources = {f"feldman/{path.relative_to(root)}" for path in root.rglob("*.py")}
    sent = names(packed(tmp_path, None, package=True))
    assert sources <= sent
    assert "feldman/presets/digits.toml" in sent
    assert "feldman/py.typed" in sent
    assert not {name for name in sent if "__pycache__" in name}
    checkout = files(tmp_path / "checkout", {"feldman/__init__.py": "# another version"})
    archive = zipfile.ZipFile(packed(tmp_path, checkout, package=True))
    assert archive.read("feldman/__init__.py") == b"# another version"
    assert "feldman/job.py" not in archive.namelist()


@pytest.mark.parametrize("sent", [True, False])
def test_the_job_reads_data_that_are_sent_where_they_arrive_and_others_where_they_are(
    tmp_path: Path, arrays_file: Path, sent: bool
) -> None:
    mine = files(tmp_path / "mine", {"sub/a.py": "a"})
    target = Path(shutil.copy(arrays_file, mine / "sub" / "d.npz")) if sent else arrays_file
    experiment = small_experiment(mine / "sub" / ".." / "sub" / "d.npz" if sent else target)
    arrived = tmp_path / "arrived"
    zipfile.ZipFile(packed(tmp_path, mine, experiment)).extractall(arrived)
    loaded = load_experiment(arrived / EXPERIMENT_FILE)
    assert loaded.dataset.path == str(arrived / "sub" / "d.npz" if sent else target)
    assert loaded.replace("dataset", {"path": experiment.dataset.path}) == experiment


def test_what_is_too_large_is_refused_before_it_is_sent_and_the_largest_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "MAX_ARCHIVE_BYTES", 3 * 1024**2)
    mine = files(tmp_path / "mine", {"a.py": "a"})
    (mine / "zeros.npy").write_bytes(bytes(9 * 1024**2))
    assert packed(tmp_path, mine).stat().st_size < 1024**2, "it is the size that is sent that counts"
    (mine / "random.npy").write_bytes(os.urandom(4 * 1024**2))
    with pytest.raises(
        InputError, match=r"more than the 3 MiB that Ray takes; .* random\.npy \(4\.0 MiB\).*\.rayignore"
    ):
        packed(tmp_path, mine)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give the one that holds your modules"):
        packed(tmp_path, tmp_path / "nowhere")
