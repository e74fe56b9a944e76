"""`smelt launch` at the command line: what it writes, prints, refuses."""

import json
import subprocess
import sys

import pytest

NEEDS = {"k8s": ["infra.launch.kubernetes.image=i"]}
PLANTED = ("infra.launch.teardown=[sync, rm -rf runs/planted/checkpoints]", "infra.launch.setup=[bash tidy.sh]")


@pytest.mark.parametrize("kind", ["torchrun", "slurm", "k8s"])
def test_a_dry_run_prints_the_script_and_writes_nothing(workshop, kind: str) -> None:
    result = workshop.smelt("launch", kind, "tiny.yaml", f"name=dry-{kind}", "--dry-run", *NEEDS.get(kind, []))
    assert result.returncode == 0, result.stderr
    assert ("torch.distributed.run" if kind == "slurm" else "--supervise --resume") in result.stdout
    assert not (workshop.project / "runs" / f"dry-{kind}").exists()


def test_the_script_is_written_where_it_is_asked_for(workshop) -> None:
    result = workshop.smelt("launch", "torchrun", "tiny.yaml", "name=out", "--out", "mine.sh", "--json")
    assert json.loads(result.stdout) == {"script": str(workshop.project / "mine.sh")}
    assert (workshop.project / "mine.sh").read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("kind", ["torchrun", "slurm", "k8s"])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_delete_of_checkpoints_blocks_the_launch(workshop, kind: str, planted: str) -> None:
    """INFRA-15 (X): in the recipe's own lines, and in a script that they call."""
    (workshop.project / "tidy.sh").write_text("echo tidying\nrm -rf runs/planted\n")
    result = workshop.smelt("launch", kind, "tiny.yaml", "name=planted", planted, *NEEDS.get(kind, []))
    assert result.returncode == 2
    key = planted.split("=")[0]
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"smelt: {key}, ") and "line 2: 'rm -rf runs/planted" in last
    assert not (workshop.project / "runs" / "planted").exists()


def test_a_delete_of_uploaded_checkpoints_blocks_the_launch(workshop) -> None:
    """INFRA-15 (X)."""
    changes = ["train.checkpoints.upload=s3://bucket/kept", "infra.launch.teardown=[aws s3 rm s3://bucket/kept/demo]"]
    result = workshop.smelt("launch", "slurm", "tiny.yaml", "--dry-run", *changes)
    assert result.returncode == 2 and "where s3://bucket/kept lies" in result.stderr


def test_own_scripts_are_checked_and_a_finding_is_a_no(workshop) -> None:
    """INFRA-15 (X): prolog and epilog."""
    (workshop.project / "prolog.sh").write_text("module load cuda\nmkdir -p /scratch/logs\n")
    (workshop.project / "epilog.sh").write_text("cp log /scratch\nrm -rf /scratch/runs/*/checkpoints\n")
    clean = workshop.smelt("launch", "check", "prolog.sh")
    assert (clean.returncode, clean.stdout) == (0, "nothing here deletes checkpoints\n")
    found = workshop.smelt("launch", "check", "prolog.sh", "epilog.sh")
    assert found.returncode == 1 and found.stdout.startswith("epilog.sh, line 2: 'rm -rf /scratch/runs/*/checkpoints'")
    (workshop.project / "epilog.sh").write_bytes("# aufr\xe4umen\nrm -rf runs\n".encode("latin-1"))
    latin = workshop.smelt("launch", "check", "epilog.sh")
    assert latin.returncode == 1 and latin.stdout.startswith("epilog.sh, line 2: 'rm -rf runs'")
    protected = workshop.smelt("launch", "check", "prolog.sh", "--protect", "/scratch", "--json")
    assert json.loads(protected.stdout) == {"findings": []}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launch", "k8s", "tiny.yaml"], "infra.launch.kubernetes.image: needed"),
        (["launch", "slurm", "tiny.yaml", "infra={nodes: 2, layout: {tensor: 4}}"], "does not divide the 2 processes"),
        (["launch", "slurm", "tiny.yaml", "infra.launch.slurm.time=soon"], "infra.launch.slurm.time: "),
        (["launch", "slurm", "tiny.yaml", "infra.launch.slurm.partitions=a"], "did you mean 'partition'?"),
        (["launch", "check", "nowhere.sh"], "nowhere.sh: no such script"),
        (["train", "tiny.yaml", "infra.nodes=2", "--supervise"], "start the run with 'smelt launch'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(workshop, words: list[str], message: str) -> None:
    result = workshop.smelt(*words)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


def test_launching_imports_no_torch(workshop) -> None:
    code = (
        "import sys, smelt.cli.main as m\n"
        "sys.argv = ['smelt', 'launch', 'slurm', 'tiny.yaml', '--dry-run']\n"
        "try:\n    m.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=workshop.project, capture_output=True).returncode == 0
