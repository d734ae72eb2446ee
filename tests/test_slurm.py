"""The array script on a SLURM of this machine alone: a task that is killed is queued again and goes on.

Its three daemons come with Debian's `slurm-wlm`; they run as root and keep everything in a temporary folder. Where
that cannot be, the test is skipped with words, unless SCANWISE_NEEDS_QUEUE=1 says that it must run.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest

import cohort
from tests import small_scans
from tests.support import ROOT, free_ports, until
from tests.test_cohort import rows

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES State=UP
"""
# In place of the program's python: the first time, the first task is killed in the middle of a row.
PYTHON = """#!/bin/sh
if [ "$SLURM_ARRAY_TASK_ID" = 1 ] && [ -z "$SLURM_RESTART_COUNT" ]; then
    shift
    cd {root} && DIE_AT=3 exec {python} -m tests.small_scans "$@"
fi
exec {python} "$@"
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A function that runs one of SLURM's commands and gives what it says."""
    if not shutil.which("slurmctld") or os.geteuid():
        words = "SLURM is not installed (Debian: slurm-wlm), or these tests do not run as root"
        assert os.environ.get("SCANWISE_NEEDS_QUEUE") != "1", words
        pytest.skip(words)
    folder = tmp_path_factory.mktemp("slurm")
    for parent in [folder, *folder.parents[:3]]:
        parent.chmod(parent.stat().st_mode | 0o011)  # munge wants a way to its socket
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2)))
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    munge = ["--key-file=munge.key", "--socket=munge.sock", "--pid-file=munge.pid", "--log-file=munge.log"]
    munge = [option.replace("=", f"={folder}/") for option in [*munge, "--seed-file=munge.seed"]]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-f", configuration],
        ["slurmd", "-D", "-f", configuration],
    )

    def say(*words: object) -> str:
        return subprocess.run(
            list(map(str, words)), env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    started: list[subprocess.Popen] = []
    try:
        with (folder / "daemons.log").open("w") as log:
            for command, ready in zip(commands, ("munge.sock", "slurmctld.pid", "slurmd.pid"), strict=True):
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                until((folder / ready).exists, 60, f"{ready} in {folder}")
        until(lambda: "idle" in say("sinfo", "--noheader", "-o", "%T"), 60, "the node to be idle")
        yield say
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_an_array_of_shards_with_a_task_that_was_killed_is_whole(slurm, tmp_path):
    files = small_scans.dataset(tmp_path / "scans", 6)
    weights, out = small_scans.weights(tmp_path), tmp_path / "answers.csv"
    python = tmp_path / "python"
    python.write_text(PYTHON.format(root=ROOT, python=sys.executable))
    python.chmod(0o755)
    given = {"SCANWISE": ROOT, "SCANS": tmp_path / "scans", "RESULTS": out, "PYTHON": python}
    given["OPTIONS"] = f"--weights {weights} --device cpu"
    asked = ["--export", ",".join(f"{name}={value}" for name, value in given.items())]
    asked += ["--array=1-2", "--cpus-per-task=1", "--mem=1000", f"--output={tmp_path}/task-%a.log", "--parsable"]
    job = slurm("sbatch", *asked, ROOT / "docs" / "slurm.sh").strip()

    def state(task: int) -> str:
        return slurm("scontrol", "show", "job", f"{job}_{task}").split("JobState=")[1].split()[0]

    until(lambda: state(1) == "FAILED", 120, f"task 1, which says {state(1)}")
    first = out.with_name("answers.shard-1-of-2.csv")
    assert not first.exists() and len((tmp_path / f"{first.name}.part").read_bytes().splitlines()) == 4
    slurm("scontrol", "requeue", f"{job}_1")
    slurm("scontrol", "update", f"JobId={job}_1", "StartTime=now")  # else it lets two minutes pass
    for task in (1, 2):
        until(lambda task=task: state(task) == "COMPLETED", 120, f"task {task}, which says {state(task)}")
    log = (tmp_path / "task-1.log").read_text()
    assert "2 were there" in log, log
    assert cohort.main(["merge", *map(str, sorted(tmp_path.glob("answers.shard-*"))), "--out", str(out)]) == 0
    assert Counter(row["file"] for row in rows(out)) == Counter(files)
