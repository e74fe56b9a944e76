"""Launch scripts are read for what could delete checkpoints."""

from pathlib import Path

import pytest

from smelt.infra.lint import lint_script

FOLDER = Path("/project")
KEPT = ["runs/demo", "s3://bucket/smelt/demo"]


def lines(script: str, protected=KEPT) -> list[int]:
    return [finding.line for finding in lint_script(script, protected, FOLDER)]


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf runs/demo/checkpoints",
        "rm -rf /project/runs",
        "rm -rf /project",
        "rm -rf ./*",
        "rm -rf runs/d*",
        "sudo /bin/rm -r -f -- runs/demo",
        "\\rm -rf runs/demo",
        "OUT=runs/demo; rm -rf $OUT/checkpoints",
        "OUT=runs; RUN=${OUT}/demo\nrm -rf ${RUN}",
        "rm -rf $WHO_KNOWS",
        "cd runs && rm -rf demo",
        "cd $SOMEWHERE; rm -rf *",
        "find runs -name 'step-*' -delete",
        "find runs -type f -exec rm {} \\;",
        "find . -name '*.safetensors' | xargs rm -f",
        "ls -d runs/demo/checkpoints/* | head -n -1 | xargs rm -rf",
        "rsync -a --delete empty/ runs/demo/",
        "if [ -d old ]; then rm -rf runs/demo; fi",
        "[ $? = 0 ] && rm -rf runs/demo || true",
        "for s in runs/demo/checkpoints/*; do rm -r $s; done",
        "cleanup() { rm -rf runs/demo; }",
        "trap 'rm -rf runs/demo/checkpoints' EXIT",
        'bash -c "cd runs; rm -rf demo"',
        "ssh node-1 rm -rf runs/demo",
        "srun --ntasks=1 rm -rf runs/demo/checkpoints",
        'echo "rm -rf runs/demo" | bash',
        "bash <<END\nrm -rf runs/demo\nEND",
        "bash <<< 'rm -rf runs/demo'",
        "rm -rf \\\n  runs/demo",
        "echo $(rm -rf runs/demo) | cat > list",
        "x=`rm -rf runs/demo`",
        "python -c \"import shutil; shutil.rmtree('runs/demo')\"",
        "python <<END\nimport os\nos.remove('x')\nEND",
        "aws s3 rm --recursive s3://bucket/smelt/demo",
        "aws s3 rm --recursive s3://bucket/smelt",
        "s5cmd rm 's3://bucket/smelt/demo/*'",
        "aws s3 sync --delete empty s3://bucket/smelt/demo",
        "gsutil -m rm -r $BUCKET",
        "git clean -fdx",
        "> runs/demo/checkpoints/step-00000100/model.safetensors",
        "truncate -s 0 runs/demo/checkpoints/step-00000100/model.safetensors",
        "rm -rf /tmp/../project/runs",
        "kubectl delete pvc smelt-demo",
    ],
)
def test_what_could_delete_checkpoints_is_found(command: str) -> None:
    """INFRA-15: destructive deletes of checkpoint paths are found however they are written."""
    assert lines(f"set -e\n{command}\n"), command


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /tmp/scratch-$USER",
        "rm -rf $TMPDIR/cache",
        "rm -f /home/someone/other-project/core.*",
        "rm -rf build",
        "# rm -rf runs/demo",
        "echo never rm -rf runs/demo",
        "python train.py > runs/demo/log.txt 2>&1",
        "docker run --rm image",
        "docker rm container",
        "rsync -a /nvme/ runs/demo/",
        "aws s3 cp model s3://bucket/smelt/demo/",
        "aws s3 rm s3://elsewhere/file",
        "find runs -name '*.json'",
        "mv notes.txt old-notes.txt",
        "source missing.sh",
        'export PATH="$HOME/bin:$PATH"',
        "case $1 in start) srun hostname ;; esac",
    ],
)
def test_what_deletes_nothing_of_a_run_passes(command: str) -> None:
    assert lines(f"set -e\n{command}\n") == [], command


def test_a_finding_names_the_line_the_command_and_the_mend() -> None:
    """INFRA-15."""
    (finding,) = lint_script("srun train\n\nsrun sync; rm -rf runs/demo  # tidy up\n", KEPT, FOLDER)
    assert (finding.line, finding.command) == (3, "rm -rf runs/demo")
    assert str(finding).startswith("line 3: 'rm -rf runs/demo' deletes 'runs/demo'")
    assert "train.checkpoints" in str(finding)


def test_scripts_that_a_script_calls_are_read_too(tmp_path: Path) -> None:
    """INFRA-15: the playbook's leftover delete stood at the end of a script that another one called."""
    (tmp_path / "finish.sh").write_text("cp log away\nbash tidy.sh\n")
    (tmp_path / "tidy.sh").write_text("source finish.sh\nrm -rf runs/demo\n")
    (finding,) = lint_script("srun train\n./finish.sh\n", ["runs/demo"], tmp_path)
    assert (finding.script, finding.line) == (str(tmp_path / "tidy.sh"), 2)


def test_a_delete_in_remote_storage_is_refused_when_nobody_says_where_checkpoints_go() -> None:
    assert lines("aws s3 rm s3://elsewhere/file", ["runs/demo"]) == [1]
