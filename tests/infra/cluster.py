"""A Slurm cluster of one node on this machine, with everything it writes in one folder."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lives import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONFIG = """\
ClusterName=smelt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
ReturnToService=2
KillWait=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts Slurm; gives the environment in which its commands find it. Skips the test where it cannot run."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge (missing: {', '.join(missing) or 'root'})")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    controller, node = _free_ports()
    facts = {"host": host, "folder": folder, "controller": controller, "node": node, "cpus": os.cpu_count()}
    (folder / "slurm.conf").write_text(CONFIG.format(**facts))
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    places = [f"--{name}={folder}/munge.{end}" for name, end in _MUNGE.items()]
    subprocess.run(["munged", "--force", *places], env=environment, check=True)
    try:
        subprocess.run(["slurmctld", "-i"], env=environment, check=True)
        subprocess.run(["slurmd"], env=environment, check=True)
        until(lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%T"), 60)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        until(lambda: not ask(environment, "squeue", "--noheader"), 100)
        subprocess.run(["scontrol", "shutdown"], env=environment, capture_output=True)
        until(lambda: not any((folder / f"{name}.pid").exists() for name in ("slurmctld", "slurmd")), 60)
        os.kill(int((folder / "munge.pid").read_text()), 15)


_MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def ask(environment: dict[str, str], *command: str) -> str:
    """What a Slurm command prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
