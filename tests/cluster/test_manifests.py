"""The manifests of cluster/ are what KubeRay, `ray up` and compose expect, and the commands in them exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from feldman.experiment import Experiment
from feldman.experiment_files import load_experiment
from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
SCHEMAS = Path(__file__).parent


def valid(document: Any, schema: str) -> Any:
    jsonschema.validate(document, json.loads((SCHEMAS / schema).read_text()))
    return document


def rayjob() -> dict[str, Any]:
    claim, job = yaml.safe_load_all((CLUSTER / "kuberay" / "rayjob.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim"
    return dict(valid(job, "rayjob.schema.json"))


def rayjob_on_s3() -> dict[str, Any]:
    """What kustomize makes of it: its operations are few, and done here."""
    job = rayjob()
    kustomization = yaml.safe_load((CLUSTER / "kuberay" / "s3" / "kustomization.yaml").read_text())
    assert [(CLUSTER / "kuberay" / "s3" / path).resolve() for path in kustomization["resources"]] == [
        CLUSTER / "kuberay" / "rayjob.yaml"
    ]
    (patch,) = [patch for patch in kustomization["patches"] if patch["target"]["kind"] == "RayJob"]
    assert patch["target"]["name"] == job["metadata"]["name"]
    for operation in yaml.safe_load(patch["patch"]):
        *way, last = operation["path"].strip("/").split("/")
        place: Any = job
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        assert (last in place) is (operation["op"] != "add"), operation
        if operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    return dict(valid(job, "rayjob.schema.json"))


def asked_for(command: str) -> tuple[Experiment, str]:
    """The experiment and the run directory of a `feldman run` command."""
    program, verb, experiment, *options = shlex.split(command)
    assert (program, verb) == ("feldman", "run")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given.keys() == {"-o", "--address", "--set"}
    assert given["--address"] == "auto"
    return load_experiment(experiment, [given["--set"]]), given["-o"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_makes_the_same_of_it_and_no_claim() -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", CLUSTER / "kuberay" / "s3"],
        capture_output=True,
        check=True,
    )
    assert list(yaml.safe_load_all(made.stdout)) == [rayjob_on_s3()]


@pytest.mark.parametrize("job", [rayjob, rayjob_on_s3])
def test_a_retry_of_the_rayjob_resumes_from_what_outlives_its_cluster(job: Any) -> None:
    spec = job()["spec"]
    _, run = asked_for(spec["entrypoint"])
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0].get("volumeMounts", ())}
    claims = {volume["name"] for volume in head.get("volumes", ()) if "persistentVolumeClaim" in volume}
    if run.startswith("s3://"):
        assert head["serviceAccountName"]
        assert not mounts
    else:
        assert mounts[str(Path(run).parent)] in claims
    assert spec["backoffLimit"] > 1
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:  # the driver is the only writer
        worker = group["template"]["spec"]
        assert not {"volumes", "serviceAccountName"} & worker.keys()
        assert "volumeMounts" not in worker["containers"][0]


def test_the_rayjob_asks_the_autoscaler_for_as_many_gpus_as_it_may_have() -> None:
    spec = rayjob()["spec"]
    experiment, _ = asked_for(spec["entrypoint"])
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_node = int(limits["nvidia.com/gpu"]) / experiment.execution.gpus_per_block
    assert experiment.execution.num_workers == workers["maxReplicas"] * per_node
    assert workers["minReplicas"] >= 1
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["rayVersion"] == ray.__version__
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"].isdigit()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_up_takes_the_file_of_each_cloud_and_gpus_are_spot(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CLUSTER / "ray-up" / f"{cloud}.yaml").read_text()
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    head, spot = (config["available_node_types"][name] for name in ("head", "spot-gpu"))
    assert config["provider"]["type"] == cloud
    assert "spot" in str(spot["node_config"]).lower()
    assert "spot" not in str(head["node_config"]).lower()
    assert spot["min_workers"] >= 1
    assert spot["max_workers"] == config["max_workers"]
    assert head["resources"] == {"CPU": 0}
    # The token reaches every node as a file, authentication is on, and no token stands in the file.
    assert any(path.endswith("/.ray/auth_token") for path in config["file_mounts"])
    assert any("RAY_AUTH_MODE=token" in option for option in config["docker"]["run_options"])
    assert "RAY_AUTH_TOKEN=" not in text


def ray_start_commands() -> list[str]:
    found = []
    for path in sorted(CLUSTER.rglob("*")):
        if path.suffix in {".yaml", ".sbatch"}:
            text = re.sub(r"\\\n\s*", " ", path.read_text())
            found += [f"{path.name}: {match}" for match in re.findall(r"\bray start .*", text)]
    return found


@pytest.mark.parametrize("command", ray_start_commands())
def test_ray_start_knows_the_options_that_are_given_to_it(command: str) -> None:
    words = shlex.split(re.sub(r'"\$\{resources\[@\]\}"|&$|\$\w+', lambda found: "1" * ("$" in found[0][:1]), command))
    options = words[words.index("start") + 1 :]
    ray_start.make_context("start", [word for word in options if word], resilient_parsing=True)
    assert "--head" in options or any(option.startswith("--address") for option in options)


def test_compose_has_a_head_that_writes_and_two_workers_with_the_same_token() -> None:
    folder = CLUSTER / "container"
    compose = valid(yaml.safe_load((folder / "compose.yaml").read_text()), "compose.schema.json")
    services = compose["services"]
    assert sorted(services) == ["head", "worker-1", "worker-2"]
    for service in services.values():
        assert (folder / service["build"]["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / service["build"]["dockerfile"]).exists()
        (secret,) = service["secrets"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{secret}"
        assert secret in compose["secrets"]
    assert [name for name, service in services.items() if "volumes" in service] == ["head"]
    assert {volume.split(":")[0] for volume in services["head"]["volumes"]} == set(compose["volumes"])


def test_every_form_has_a_readme_of_a_screenful() -> None:
    forms = sorted(path for path in CLUSTER.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert [form.name for form in forms] == ["container", "kuberay", "ray-up", "slurm"]
    for form in forms:
        lines = (form / "README.md").read_text().splitlines()
        assert 10 < len(lines) <= 50, form.name
        assert f"({form.name}/README.md)" in (CLUSTER / "README.md").read_text()


def test_the_image_has_the_version_of_ray_that_the_lock_has() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    dockerfile = (CLUSTER / "container" / "Dockerfile").read_text()
    python = re.search(r"^ARG PYTHON=(\S+)", dockerfile, re.MULTILINE)
    assert python is not None
    assert project["project"]["requires-python"] == f">={python[1]}"
    assert f"\nray=={ray.__version__} " in (REPOSITORY / "requirements.lock").read_text()
