"""cluster/slurm.sh, run with all of Slurm and Ray faked."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster_files import CLUSTER, settings_of
from tests.helpers.waiting import PATIENCE

SLURM = CLUSTER / "slurm.sh"
FAKES = {
    # An allocation: srun runs the words after its options here, once.
    "srun": 'echo "srun $*" >> calls; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": """echo "scontrol $*" >> calls
        case "$1 $2" in
          "show hostnames") printf '%s\\n' $SLURM_JOB_NODELIST ;;
          "show job") echo "JobId=1 JobState=$STATE Reason=None" ;;
        esac""",
    "getent": 'echo "10.0.0.1 STREAM $2"',
    # Waits until the nodes are there: the head's step, and one for all others.
    "python": """if [[ $1 == -m ]]; then echo "python $2 $BAT_DIST_MPS" >> calls; shift 2; exec "$@"; fi
        cat > /dev/null; echo python >> calls
        until [ "$(grep -c '^ray start' calls)" -ge $(($2 > 1 ? 2 : 1)) ]; do sleep 0.05; done""",
    "ray": """echo "ray $*" >> calls
        case $1 in
          health-check) [ -e up ] ;;
          start)
            [ -z "$HEAD_FAILS" ] || exit 1
            stat -c %a "$RAY_AUTH_TOKEN_PATH" >> modes; cat "$RAY_AUTH_TOKEN_PATH" > token
            trap 'rm -f up; echo "ray ended" >> calls; exit 0' TERM
            touch up
            while :; do sleep 0.05; done ;;
        esac""",
    "work": "printf '%s\\0' \"$@\" > words; echo working > started; exit ${CODE:-0}",
    "patient": 'trap "echo saved > ended; exit ${CODE:-1}" TERM; echo working > started; while :; do sleep 0.05; done',
}


class Job:
    """A Slurm job of one script, with all of Slurm and Ray faked."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.number = os.getpid() * 10 + 1
        self.logs = Path(f"/tmp/bat-dist-{self.number}")
        bin = folder / "bin"
        bin.mkdir()
        for name, body in FAKES.items():
            (bin / name).write_text(f"#!/usr/bin/env bash\ncd {folder}\n{body}\n")
            (bin / name).chmod(0o755)
        (folder / "home/.bat-dist").mkdir(parents=True)
        (folder / "home/.bat-dist/env.sh").write_text("export RAY_ADDRESS=auto RAY_AUTH_MODE=token\n")

    def start(self, *words: str, nodes: str = "n1", **environment: str) -> "subprocess.Popen[str]":
        variables = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_CPUS_PER_TASK": "8",
            "STATE": "RUNNING",
            "HEAD_FAILS": "",
        }
        process = subprocess.Popen(
            ["bash", SLURM, *words],
            cwd=self.folder,
            env=variables | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    def stop_in_the_middle(self, *words: str, **environment: str) -> tuple[int, str]:
        """As Slurm does two minutes before the end."""
        process = self.start(*words, **environment)
        for _ in range(600):
            if (self.folder / "started").exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    def calls(self, name: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(name)]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for process in job.started:  # nothing is left if all is well
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout:
            process.stdout.close()
        process.wait()
    for path in job.logs.glob("*"):
        path.unlink()
    if job.logs.exists():
        job.logs.rmdir()


def test_the_slurm_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", SLURM], capture_output=True, text=True).stderr == ""


def test_slurm_is_asked_to_signal_and_to_queue_again() -> None:
    options = re.findall(r"^#SBATCH (--\S+)", SLURM.read_text(), flags=re.MULTILINE)
    assert {"--signal=B:TERM@120", "--requeue", "--no-kill", "--open-mode=append"} <= set(options)
    # sbatch reads no option after the first command.
    assert SLURM.read_text().rindex("#SBATCH") < SLURM.read_text().index("set -euo pipefail")


def test_a_slurm_job_runs_its_command_as_given_and_leaves_nothing(job: Job) -> None:
    words = ["a b", "; touch owned", "$(touch owned)", "*", ""]
    code, output = job.run("work", *words)
    assert (code, output.count("error")) == (0, 0)
    assert (job.folder / "words").read_text().split("\0")[:-1] == words
    assert not (job.folder / "owned").exists()
    assert job.calls("ray ended")
    assert list((job.folder / "home/.bat-dist").iterdir()) == [job.folder / "home/.bat-dist/env.sh"]


def test_the_token_of_a_slurm_job_is_new_its_owners_and_never_told(job: Job) -> None:
    tokens = set()
    for _ in range(2):
        _, output = job.run("work")
        tokens.add((job.folder / "token").read_text())
        assert not any(token in output + (job.folder / "calls").read_text() for token in tokens)
    assert len(tokens) == 2
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in tokens)
    assert set((job.folder / "modes").read_text().split()) == {"600"}


def test_the_first_node_is_the_head_and_the_others_join_it(job: Job) -> None:
    code, _ = job.run("work", nodes="n1 n2 n3")
    assert code == 0
    head, workers = job.calls("srun")
    assert "--nodelist=n1" in head
    assert "ray start --head" in head
    assert "--dashboard-host=127.0.0.1" in head
    port = 20000 + job.number % 2000 * 5
    assert f"--port={port}" in head
    assert "--nodes=2 --ntasks=2 --exclude=n1" in workers
    assert f"ray start --address=10.0.0.1:{port} " in workers
    for step in (head, workers):
        assert "--num-cpus=8" in step  # the job's, not the machine's
        assert "--kill-on-bad-exit=0" in step


def test_every_node_has_an_mps_of_this_job_unless_it_is_not_wanted(job: Job) -> None:
    for wanted, given in (("", f"{job.logs}/mps"), ("0", "0")):
        assert job.run("work", nodes="n1 n2", BAT_DIST_MPS=wanted)[0] == 0
        assert job.calls("python bat_dist.workers.mps") == 2 * [f"python bat_dist.workers.mps {given}"]
        assert len(job.calls("python bat_dist.workers.start_again")) == 2
        assert job.calls("ray start")  # which they run
        (job.folder / "calls").unlink()


def test_one_node_is_enough(job: Job) -> None:
    assert job.run("work")[0] == 0
    assert len(job.calls("srun")) == 1


def test_the_exit_code_is_the_commands(job: Job) -> None:
    assert job.run("work", CODE="3")[0] == 3
    assert not job.calls("scontrol requeue")


def test_when_time_is_up_the_command_ends_cleanly_and_the_job_is_queued_again(job: Job) -> None:
    code, output = job.stop_in_the_middle("patient")
    assert (job.folder / "ended").read_text() == "saved\n"
    assert code == 1
    assert "back into the queue" in output
    assert job.calls("scontrol requeue") == [f"scontrol requeue {job.number}"]
    assert job.calls("ray ended")


@pytest.mark.parametrize(
    ("why", "environment"),
    [
        ("the user cancelled it", {"STATE": "CANCELLED"}),
        ("the command was done anyway", {"CODE": "0"}),
        ("it never gets anywhere", {"SLURM_RESTART_COUNT": "50"}),
    ],
)
def test_a_job_is_not_queued_again_when(job: Job, why: str, environment: dict[str, str]) -> None:
    job.stop_in_the_middle("patient", **environment)
    assert (job.folder / "ended").exists()
    assert not job.calls("scontrol requeue"), why


def test_a_head_that_does_not_start_is_said(job: Job) -> None:
    code, output = job.run("work", HEAD_FAILS="yes")
    assert code == 1, output
    assert "the head did not start" in output
    assert not (job.folder / "words").exists()


def test_no_command_no_slurm_no_installation(job: Job) -> None:
    assert "no command" in job.run()[1]
    assert "sbatch" in job.run("work", SLURM_JOB_ID="")[1]
    (job.folder / "home/.bat-dist/env.sh").unlink()
    code, output = job.run("work")
    assert (code, "install.sh" in output) == (1, True)


def test_the_slurm_command_of_the_header_is_one() -> None:
    command = re.search(r"cluster/slurm\.sh \\\n#\s+bat-dist (memorize .*)", SLURM.read_text())
    assert command
    settings_of(command[1])
