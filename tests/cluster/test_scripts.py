"""The scripts of cluster/ and the image's Dockerfile: checked by their linters, and the image's set-up run with stand-ins."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
BIN = Path(sys.executable).parent
FAKES = Path(__file__).parent / "fake_slurm"
SCRIPTS = [*sorted(CLUSTER.rglob("*.sbatch")), *(FAKES / name for name in ("feldman", "ray", "scontrol", "stage"))]
DOCKERFILE = CLUSTER / "container" / "Dockerfile"


def passes(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    passes("bash", "-n", script)
    passes(BIN / "shellcheck", script)


def test_hadolint_has_nothing_to_say() -> None:
    passes(BIN / "hadolint", DOCKERFILE)


@pytest.mark.parametrize("script", sorted(CLUSTER.rglob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_script_without_its_arguments_says_which(script: Path) -> None:
    done = subprocess.run(["bash", script, "digits"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "EXPERIMENT RUN" in done.stderr


def installed(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    """Run the step of the Dockerfile that installs the lock, with pip and uv that write down what they are given."""
    text = re.sub(r"\\\n", "", DOCKERFILE.read_text())
    (step,) = re.findall(r"^RUN (case .*)$", text, re.MULTILINE)
    (folder / "requirements.lock").write_text((REPOSITORY / "requirements.lock").read_text())
    for tool in ("pip", "uv"):
        (folder / tool).write_text(
            '#!/bin/sh\necho "$0 $*" >>calls\nfor last; do :; done\ncp "$last" "given-$last.txt"\n'
        )
        (folder / tool).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "BACKEND": backend}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def names(file: Path) -> set[str]:
    return {line.split("==")[0] for line in file.read_text().splitlines() if re.match("[a-z0-9]", line)}


def test_the_image_for_gpus_holds_the_lock_as_it_is(tmp_path: Path) -> None:
    assert installed(tmp_path, "cuda").returncode == 0
    assert (tmp_path / "given-image.lock.txt").read_text() == re.sub(
        r"\A(?:[ #].*\n)*", "", (REPOSITORY / "requirements.lock").read_text()
    )
    assert names(tmp_path / "given-uv.lock.txt") == {"uv"}


def test_the_image_without_gpus_holds_all_but_cuda_and_takes_torch_by_version(tmp_path: Path) -> None:
    assert installed(tmp_path, "cpu").returncode == 0
    left_out = names(REPOSITORY / "requirements.lock") - names(tmp_path / "given-image.lock.txt")
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= left_out
    assert {name.split("-")[0] for name in left_out} <= {"torch", "torchvision", "triton", "nvidia", "cuda"}
    assert names(tmp_path / "given-torch.txt.txt") == {"torch", "torchvision"}
    assert "--torch-backend cpu" in (tmp_path / "calls").read_text()


def test_another_backend_is_refused(tmp_path: Path) -> None:
    done = installed(tmp_path, "rocm")
    assert done.returncode == 2
    assert "BACKEND is cuda or cpu, found 'rocm'" in done.stderr
