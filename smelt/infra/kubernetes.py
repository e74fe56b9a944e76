"""Kubernetes: an indexed Job with one pod a machine, where they find each other, and the volume they share."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from smelt.errors import InputError
from smelt.infra.job import Job
from smelt.infra.refusal import REFUSED
from smelt.infra.torchrun import script
from smelt.recipe.dump import to_yaml

_VOLUME, _FILES = Path("/work"), Path("/launch")


def manifests(job: Job) -> str:
    """A YAML stream for `kubectl apply -f`: the recipe and the start script, the service, the volume, the job."""
    if job.launch.kubernetes.image is None:
        raise InputError("infra.launch.kubernetes.image: needed, a container image in which smelt is installed")
    within = replace(job, file=_FILES / "recipe.yaml", overrides=(), project=Path("."), folder=_VOLUME, python="python")
    objects = [_config(within), *([_service(within)] if job.recipe.infra.nodes > 1 else []), *_claim(within)]
    yaml = YAML()
    text = io.StringIO()
    yaml.dump_all([*objects, _job(within)], text)
    return text.getvalue()


def _name(job: Job) -> str:
    """The run's name as Kubernetes allows it, short enough for the numbers that it appends."""
    return re.sub(r"[^a-z0-9]+", "-", f"smelt-{job.recipe.name}".lower())[:50].strip("-")


def _metadata(job: Job, name: str | None = None) -> dict[str, Any]:
    namespace = job.launch.kubernetes.namespace
    labels = {"app.kubernetes.io/name": "smelt", "app.kubernetes.io/instance": _name(job)}
    return {"name": name or _name(job), **({"namespace": namespace} if namespace else {}), "labels": labels}


def _config(job: Job) -> dict[str, Any]:
    files = {"recipe.yaml": to_yaml(job.recipe), "start.sh": script(job)}
    data = {name: LiteralScalarString(text) for name, text in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(job), "data": data}


def _service(job: Job) -> dict[str, Any]:
    """Gives every pod a name; before it is ready, as it becomes so only together with the others."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"batch.kubernetes.io/job-name": _name(job)},
        "ports": [{"name": "meeting", "port": job.launch.port}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(job), "spec": spec}


def _claim(job: Job) -> list[dict[str, Any]]:
    section = job.launch.kubernetes
    if section.claim is not None:
        return []
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany" if job.recipe.infra.nodes > 1 else "ReadWriteOnce"],
        "resources": {"requests": {"storage": section.size}},
    }
    if section.storage_class:
        spec["storageClassName"] = section.storage_class
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _metadata(job), "spec": spec}]


def _job(job: Job) -> dict[str, Any]:
    nodes = job.recipe.infra.nodes
    spec = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": job.launch.restarts * nodes,
        # Bad input fails the job at once; a drained or preempted machine costs no try.
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [REFUSED]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": _metadata(job)["labels"]}, "spec": _pod(job)},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(job), "spec": spec}


def _pod(job: Job) -> dict[str, Any]:
    section, nodes = job.launch.kubernetes, job.recipe.infra.nodes
    volumes = [
        {"name": "work", "persistentVolumeClaim": {"claimName": section.claim or _name(job)}},
        {"name": "launch", "configMap": {"name": _name(job)}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},  # the usual 64 MiB are too few for NCCL
    ]
    places = {"work": str(_VOLUME), "launch": str(_FILES), "memory": "/dev/shm"}
    container: dict[str, Any] = {
        "name": "train",
        "image": section.image,
        "command": ["bash", str(_FILES / "start.sh"), *([f"{_name(job)}-0.{_name(job)}"] if nodes > 1 else [])],
        "workingDir": str(_VOLUME),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in places.items()],
    }
    if job.gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": job.recipe.infra.gpus_per_node}}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.launch.grace_seconds + 30,
        **({"subdomain": _name(job)} if nodes > 1 else {}),
        **({"nodeSelector": dict(section.node_selector)} if section.node_selector else {}),
        "containers": [container],
        "volumes": volumes,
    }
