"""Runs on S3, from the commands down, against moto's server; what they are compared with is the same run in a folder."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import obstore
import pytest
from obstore.exceptions import GenericError

from feldman import job, open_run
from feldman.errors import RunDirectoryError, StorageError, StoreBusyError
from feldman.experiment_files import load_experiment
from feldman.results.local_copies import local_copy
from feldman.trials import locations, rundir
from feldman.trials.events import EventLog, read_events
from feldman.trials.integrity import find_damage
from feldman.trials.lease import Lease, LeaseTimes, held_lease
from feldman.trials.locations import ObjectPath
from feldman.trials.markers import TrialCount, count_trials
from feldman.trials.rundir import RunPaths, run_paths, writer_lock
from feldman.trials.session import pending_blocks, prepared_store
from feldman.trials.store import TrialStore
from tests.commands import Commands
from tests.conftest import cli_environment, long, small_dataset
from tests.object_store import (
    KEY,
    SECRET,
    Proxy,
    download_run,
    make_bucket,
    memory_path,
    object_path,
    s3_environment,
    s3_server,
)
from tests.runs import FeldmanProcess, assert_same_run, finish, wait_until, write_experiment
from tests.trials.stores import experiment_of, result_of

BUCKETS = iter(f"bucket-{number}" for number in range(1000))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment leads to it, and tables are copied below the test's own folder."""
    for name, value in s3_environment(server).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    name = next(BUCKETS)
    make_bucket(server, name)
    return f"s3://{name}"


@pytest.fixture
def proxy(server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def feldman(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


def event_names(run: str) -> list[str]:
    return [event["event"] for event in read_events(run_paths(run).events)]


def store_of(paths: RunPaths, num_trials: int = 40) -> TrialStore:
    events = EventLog(paths.events)
    try:
        return prepared_store(paths, experiment_of(num_trials), small_dataset(), events, lambda progress: None)
    finally:
        events.close()


def without_times(document: dict[str, object], run: str) -> str:
    kept = {name: value for name, value in document.items() if "seconds" not in name}
    return json.dumps(kept).replace(run, "RUN")


def test_every_command_says_of_a_run_on_s3_what_it_says_of_one_in_a_folder(
    bucket: str, feldman: Commands, tmp_path: Path
) -> None:
    experiment, answers = write_experiment(tmp_path), {}
    for run in (f"{bucket}/a/run", "local"):
        made = feldman("run", str(experiment), "-o", run, "--json")
        assert made.code == 0, made.err
        said = []
        for command in (
            ["resume", run, "--num-trials", "52", "--json"],
            ["status", run, "--json"],
            ["verify", run, "--json"],
            ["estimate", run, "--min-influence", "-1", "--min-memorization", "-1", "--json"],
            ["memorized", run, "--all", "--json"],
            ["pairs", run, "--test", "3", "--where", "influence > 0.01", "--json"],
            ["pairs", run],
        ):
            answer = feldman(*command)
            assert answer.code == 0, answer.err
            assert SECRET not in answer.out + answer.err
            document = json.loads(answer.out) if "--json" in command else {"text": answer.out}
            document = {"rows": document} if isinstance(document, list) else document
            document.pop("status", None)
            said.append(without_times(document, run))
        answers[run] = said
    assert answers[f"{bucket}/a/run"] == answers["local"]
    copied = download_run(object_path(f"{bucket}/a/run"), tmp_path / "copied")
    assert_same_run(copied, tmp_path / "local")
    for path in copied.rglob("*"):
        assert not path.is_file() or not any(word.encode() in path.read_bytes() for word in (SECRET, KEY))
    assert sorted(path.name for path in copied.iterdir()) == [
        ".tables.lease", ".writer.lease", "events", "influence.parquet", "memorization.parquet", "trials.zarr",
    ]  # fmt: skip
    for run, folder in ((f"{bucket}/a/run", "export"), ("local", "other")):  # read from anywhere, written into a folder
        assert feldman("export", run, "--format", "datamodels", "-o", folder).code == 0
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.npy")} for name in ("export", "other")]
    assert files[0] == files[1] != {}
    opened = open_run(f"{bucket}/a/run")
    assert opened.memorization().equals(open_run(tmp_path / "local").memorization())
    masks = opened.to_xarray()["subset_mask"].to_numpy()
    np.testing.assert_array_equal(masks, open_run(tmp_path / "local").to_xarray()["subset_mask"].to_numpy())


@long
def test_a_run_on_s3_that_was_killed_and_interrupted_ends_as_one_that_was_not(bucket: str, tmp_path: Path) -> None:
    experiment, run = write_experiment(tmp_path, sleep_seconds=0.5, num_trials=48), f"{bucket}/run"
    environment = cli_environment()
    store = object_path(run) / "trials.zarr"

    def committed(number: int) -> bool:
        count = count_trials(store)
        return count is not None and count.num_committed >= number

    with FeldmanProcess(tmp_path / "first", "run", experiment, "-o", run, env=environment) as process:
        wait_until(lambda: committed(8), "a block is committed")
        process.kill_tree()
    with FeldmanProcess(tmp_path / "second", "resume", run, "--json", env=environment) as process:
        wait_until(lambda: committed(24), "more blocks are committed")
        process.send(signal.SIGINT)
        ended = process.ended()
    assert ended.code == 130, ended.stderr
    assert f"Go on with: feldman resume {run}" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    job.resume(run)
    assert_same_run(download_run(object_path(run), tmp_path / "copied"), finish(experiment, tmp_path / "local"))
    names = event_names(run)
    assert names.count("run_created") == names.count("interrupted") == names.count("run_finished") == 1


@long
def test_a_driver_that_was_stopped_until_its_lease_ran_out_writes_nothing_when_it_wakes(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, run = write_experiment(tmp_path, sleep_seconds=0.5, num_trials=48), f"{bucket}/run"
    times = LeaseTimes(lasts=2.0, renewed_every=0.3, needed=0.5, margin=0.5)
    monkeypatch.setattr(rundir, "held_lease", partial(held_lease, times=times))
    patched = "from functools import partial; from feldman.trials import rundir; from feldman.trials.lease import LeaseTimes; "
    patched += (
        f"rundir.held_lease = partial(rundir.held_lease, times={times!r}); from feldman.cli.app import main; main()"
    )
    monkeypatch.setattr("tests.runs.FELDMAN", (sys.executable, "-c", patched))
    store = object_path(run) / "trials.zarr"

    def committed() -> int:
        count = count_trials(store)
        return 0 if count is None else count.num_committed

    with FeldmanProcess(tmp_path / "first", "run", experiment, "-o", run, env=cli_environment()) as stopped:
        wait_until(lambda: committed() >= 16, "blocks are committed")
        stopped.send(signal.SIGSTOP)
        finish(experiment, run)  # waits until the lease has run out, and takes it
        finished = download_run(object_path(run), tmp_path / "finished")
        stopped.send(signal.SIGCONT)
        ended = stopped.ended()
    assert ended.code == 1
    message = ended.stderr.splitlines()[-1]
    assert f"'{run}' is no longer this process's to write" in message, message
    assert f"process {os.getpid()} on " in message
    assert_same_run(finished, finish(experiment, tmp_path / "local"))
    assert_same_run(download_run(object_path(run), tmp_path / "later"), tmp_path / "local")


def test_a_storage_that_fails_for_a_while_changes_no_byte(bucket: str, tmp_path: Path, proxy: Proxy) -> None:
    experiment, run = load_experiment(write_experiment(tmp_path)), f"{bucket}/run"
    commit = TrialStore.commit_block

    def failing(self: TrialStore, result: object) -> None:
        proxy.fail = 4
        commit(self, result)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialStore, "commit_block", failing)
        job.run(experiment, run)
    assert proxy.fail == 0
    assert_same_run(
        download_run(object_path(run), tmp_path / "copied"), finish(tmp_path / "experiment.toml", tmp_path / "local")
    )


@long
def test_a_storage_that_fails_for_longer_stops_the_run_which_goes_on_when_it_is_back(
    bucket: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, run = load_experiment(write_experiment(tmp_path)), f"{bucket}/run"
    monkeypatch.setattr(locations, "RETRY_SECONDS", 0.3)
    commit, num_commits = TrialStore.commit_block, 0

    def failing(self: TrialStore, result: object) -> None:
        nonlocal num_commits
        num_commits += 1
        proxy.fail = 10**6 if num_commits == 3 else 0
        commit(self, result)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialStore, "commit_block", failing)
        with pytest.raises(
            StorageError, match=r"503 Service Unavailable; what is committed is safe.*same command again"
        ):
            job.run(experiment, run)
    proxy.fail = 0
    assert count_trials(object_path(run) / "trials.zarr") == TrialCount(num_trials=40, num_committed=16)
    # The lease could not be given back; it is that of a process which lives: of this one.
    lease = object_path(run) / ".writer.lease"
    lease.write_bytes(lease.read_bytes().replace(b'"released": false', b'"released": true'))
    job.run(experiment, run)
    assert_same_run(
        download_run(object_path(run), tmp_path / "copied"), finish(tmp_path / "experiment.toml", tmp_path / "local")
    )


def test_who_lost_the_lease_commits_no_block(bucket: str) -> None:
    paths = run_paths(f"{bucket}/run")
    with pytest.raises(StoreBusyError, match="took it over"), writer_lock(paths) as held:  # noqa: PT012
        store = store_of(held)
        store.commit_block(result_of(40, 0))
        lease = object_path(f"{bucket}/run") / ".writer.lease"
        info = lease.info()
        assert info is not None
        assert Lease(location=lease).take(info.tag)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lease, "_left", lambda self: 0.0)  # it slept
            store.commit_block(result_of(40, 1))
    assert pending_blocks(TrialStore.open(paths.store)) == [1, 2, 3, 4]
    assert not (paths.store / "subset_mask" / "c" / "1" / "0").exists()


def test_a_bucket_that_is_not_there_and_other_things_in_one_are_refused(bucket: str, tmp_path: Path) -> None:
    experiment = load_experiment(write_experiment(tmp_path))
    for ask in (lambda: job.run(experiment, "s3://nowhere/run"), lambda: open_run("s3://nowhere/run")):
        with pytest.raises(
            RunDirectoryError, match=r"there is no bucket 's3://nowhere'|'s3://nowhere/run' is not a run"
        ):
            ask()
    (object_path(bucket) / "run" / "letters.txt").write_bytes(b"dear")
    with pytest.raises(RunDirectoryError, match=r"holds other things \(letters.txt\)"):
        job.run(experiment, f"{bucket}/run")
    with pytest.raises(RunDirectoryError, match=r"is not a run: it has no trials\.zarr"):
        open_run(f"{bucket}/run")


# Without a server: in memory


def test_a_store_whose_creation_was_cut_short_is_none_and_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory_path()
    expected = store_of(RunPaths(root=whole))
    num_objects = len(obstore.list(whole.store).collect())
    write = ObjectPath.write_bytes
    for number in range(num_objects - 2):
        paths, written = RunPaths(root=memory_path()), list[str]()

        def limited(self: ObjectPath, content: bytes, number: int = number, written: list[str] = written) -> None:
            if len(written) >= number:
                raise KeyboardInterrupt
            written.append(self.key)
            write(self, content)

        with monkeypatch.context() as patch:
            patch.setattr(ObjectPath, "write_bytes", limited)
            with pytest.raises(KeyboardInterrupt):
                TrialStore.create(paths.store, experiment_of(40), small_dataset())
        assert not paths.has_store
        paths.check_new()
        store = store_of(paths)
        np.testing.assert_array_equal(store.labels("train"), expected.labels("train"))


def test_committed_blocks_without_metadata_are_not_written_over() -> None:
    paths = RunPaths(root=memory_path())
    store_of(paths).commit_block(result_of(40, 0))
    metadata = paths.store / "zarr.json"
    assert isinstance(metadata, ObjectPath)
    metadata.unlink()
    with pytest.raises(RunDirectoryError, match=r"has committed blocks and no zarr.json"):
        paths.check_new()


def test_damage_of_objects_is_found_and_a_storage_that_does_not_answer_is_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = RunPaths(root=memory_path())
    store = store_of(paths)
    for block in pending_blocks(store):
        store.commit_block(result_of(40, block))
    assert find_damage(store) == []
    chunk = paths.store / "train_correct" / "c" / "2" / "0"
    assert isinstance(chunk, ObjectPath)
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    (damage,) = find_damage(store)
    assert (damage.block, damage.array) == (2, "train_correct")
    chunk.unlink()
    assert [found.block for found in find_damage(store)] == [2]
    chunk.write_bytes(content)

    def unanswered(self: ObjectPath) -> bytes:
        raise StorageError("no answer")

    monkeypatch.setattr(ObjectPath, "read_bytes", unanswered)
    with pytest.raises(StorageError, match="no answer"):
        find_damage(store)


def test_events_of_all_sessions_and_segments_are_read_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feldman.trials.events._SEGMENT_BYTES", 300)
    monkeypatch.setattr("feldman.trials.events._SECONDS_BETWEEN_WRITES", 0.01)
    folder = memory_path() / "events"
    for session in range(2):
        log = EventLog(folder)
        for number in range(20):
            log.write("counted", {"session": session, "number": number})
            if number % 7 == 0:
                expected = 20 * session + number + 1
                wait_until(lambda expected=expected: len(read_events(folder)) == expected, "it is written")  # type: ignore[misc]
        log.close()
    found = [(event["session"], event["number"]) for event in read_events(folder)]
    assert found == [(session, number) for session in range(2) for number in range(20)]
    assert len(folder.names()) > 3


def test_a_table_is_downloaded_once_until_it_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = memory_path() / "influence.parquet"
    with pytest.raises(FileNotFoundError):
        local_copy(table)
    table.write_bytes(b"first")
    copy = local_copy(table)
    assert copy.read_bytes() == b"first"
    with monkeypatch.context() as patch:
        patch.delattr(ObjectPath, "download")
        assert local_copy(table) == copy
    table.write_bytes(b"second")
    assert local_copy(table).read_bytes() == b"second"
    assert copy.exists(), "another process may be reading it"
    os.utime(copy, (0, 0))
    table.write_bytes(b"third")
    assert local_copy(table).read_bytes() == b"third"
    assert not copy.exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_copies_of_tables_are_not_put_where_others_can_change_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = memory_path() / "influence.parquet"
    table.write_bytes(b"first")
    local_copy(table).parent.chmod(0o777)
    with pytest.raises(StorageError, match="not a folder of this user's alone"):
        local_copy(table)


def test_a_file_url_is_the_folder_that_it_names(tmp_path: Path) -> None:
    assert run_paths(f"file://{tmp_path}/a%20run").root == tmp_path / "a run"


def test_a_storage_that_refuses_says_so_and_what_to_look_at(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": KEY}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locations, "RETRY_SECONDS", 0.1)
    with pytest.raises(StorageError, match=r"was not to be had, tried for up to 0.1 s: .*run the same command again"):
        open_run(f"{bucket}/run")
    location = memory_path()
    for text, says in (
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1s", "no credentials were found"),
        ("Server returned non-2xx status code: 403 Forbidden: <Error>", "403 Forbidden"),
    ):
        refused = pytest.raises(StorageError, match=f"refuses memory://tests/run: {says}; look at the credentials")
        with refused, locations.object_errors(location):
            raise GenericError(text)


def test_answers_of_a_server_are_told_without_what_is_secret_in_them() -> None:
    text = (
        "Generic S3 error: Error performing GET http://host/b?X-Amz-Signature=SECRET in 1s - Server returned non-2xx status "
        "code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>SECRET</AWSAccessKeyId></Error>"
    )
    assert locations._reason(ValueError(text)) == "403 Forbidden (SignatureDoesNotMatch)"
    assert "SECRET" not in locations._reason(ValueError("Error GET http://host/b?X-Amz-Signature=SECRET refused"))
