"""Manifests for Kubernetes, held against its own schema."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from smelt.errors import InputError
from smelt.infra.job import Job
from smelt.infra.kubernetes import manifests
from smelt.recipe.load import load_recipe

kubernetes_validate = pytest.importorskip("kubernetes_validate")

IMAGE = "infra.launch.kubernetes.image=registry/smelt:1"


def objects(workshop: Any, *changes: str) -> dict[str, Any]:
    """The manifests by kind."""
    text = manifests(Job(workshop.load("My.Run_1", IMAGE, *changes), workshop.recipe))
    return {each["kind"]: each for each in YAML(typ="safe").load_all(text)}


@pytest.mark.parametrize(
    "change",
    [
        "infra.nodes=1",
        "infra={nodes: 4, gpus_per_node: 8, launch: {environment: {NCCL_DEBUG: WARN}, kubernetes: {image: i,"
        " namespace: research, storage_class: fast, size: 4Ti, node_selector: {gpu: h100}}}}",
        "infra.launch.kubernetes={image: i, claim: shared-data}",
    ],
)
def test_every_manifest_is_valid_by_the_schema_of_kubernetes(workshop, change: str) -> None:
    for manifest in objects(workshop, change).values():
        kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_one_pod_a_machine_finds_the_first_one_by_name(workshop) -> None:
    found = objects(workshop, "infra={nodes: 4, gpus_per_node: 8, launch: {kubernetes: {image: i}}}")
    job, service = found["Job"], found["Service"]
    name = job["metadata"]["name"]
    assert name == "smelt-my-run-1" == service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 4)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == name
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "/launch/start.sh", f"{name}-0.{name}"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_recipe_travels_with_the_job_whole(workshop, tmp_path: Path) -> None:
    files = objects(workshop, "seed=7")["ConfigMap"]["data"]
    (tmp_path / "recipe.yaml").write_text(files["recipe.yaml"])
    assert load_recipe(tmp_path / "recipe.yaml") == workshop.load("My.Run_1", IMAGE, "seed=7")
    assert "smelt.cli.main train /launch/recipe.yaml --project . --supervise --resume" in files["start.sh"]


def test_a_crash_is_tried_again_and_bad_input_is_not(workshop) -> None:
    spec = objects(workshop, "infra.launch.restarts=5", "infra.launch.grace_seconds=120")["Job"]["spec"]
    assert spec["backoffLimit"] == 5
    refused = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}
    assert refused in spec["podFailurePolicy"]["rules"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 150


def test_a_volume_that_is_there_is_used(workshop) -> None:
    found = objects(workshop, "infra.launch.kubernetes={image: i, claim: shared-data}")
    assert "PersistentVolumeClaim" not in found
    volume = found["Job"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume["persistentVolumeClaim"] == {"claimName": "shared-data"}


def test_without_an_image_the_missing_key_is_named(workshop) -> None:
    with pytest.raises(InputError, match=r"infra\.launch\.kubernetes\.image: needed"):
        manifests(Job(workshop.load("bare"), workshop.recipe))
