"""The ways to submit, the ways to be stopped, and the doors that are closed."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bat_dist.storage.files import Folder
from tests.cluster.drills import DATA, DRIVER, in_the_middle, kill_processes, num_done
from tests.cluster.lab import ADDRESSES, NODES, Lab
from tests.helpers.own_parts import write_parts
from tests.helpers.waiting import until

pytestmark = pytest.mark.cluster

OWN_DATA = ("--dataset", "/root/mine.py:patterns")
SMALL = (*DATA, "--epochs", "2", "--num_trials", "6", "--num_workers", "2")
HEAD = ADDRESSES["head"]


@pytest.fixture(scope="module", autouse=True)
def _all_nodes(lab: Lab) -> None:
    lab.wait_for_nodes()


@pytest.fixture(scope="module")
def dashboard(lab: Lab) -> str:
    """The head's dashboard as the laptop sees it through ssh, which is all that `ray dashboard` does."""
    forward = ["ssh", "-fN", "-o", "StrictHostKeyChecking=no", "-L", "8265:127.0.0.1:8265", f"root@{HEAD}"]
    lab.on_laptop(forward)
    return "http://127.0.0.1:8265"


@pytest.fixture(scope="module")
def sweep(lab: Lab) -> Path:
    """A sweep by `ray submit` of a network, a method and data whose file, and what it imports, the head alone has."""
    write_parts(lab.hosts.home("head"))
    out = lab.hosts.shared / "sweep"
    base = [f"{name.removeprefix('--')}={value}" for name, value in zip(OWN_DATA[::2], OWN_DATA[1::2], strict=True)]
    base += ["method=/root/mine.py:Pairing", "arch=/root/mine.py:Net", "recipe=fast", "epochs=1", "num_steps=2"]
    space = ["--space", "hyper=[[weight=0],[weight=1]]", "--test_attacks", "clean"]
    job = lab.submit("tune", "--base", *base, *space, "--out", str(out))
    assert job.wait() == 0, job.output
    assert "2 points, 2 runs: 2 done" in job.output
    assert "is tried again" not in job.output  # no worker looks for the file
    return out


def test_own_parts_run_through_all_programs_and_tables_are_printed_on_the_head_and_fetched(
    lab: Lab, sweep: Path
) -> None:
    """A data-parallel training and its evaluation too; the workers have no such files.  Trials: see the next test."""
    assert len((sweep / "results.csv").read_text().splitlines()) == 3
    assert (sweep / "index.html").is_file()
    place = {name: str(lab.hosts.shared / f"own_{name}") for name in ("training", "evaluation")}
    own = (*OWN_DATA, "--arch", "/root/mine.py:Net", "--method", "/root/mine.py:Pairing")
    how = ("--recipe", "fast", "--epochs", "1", "--num_steps", "2", "--num_workers", "3", "--batch_size", "30")
    attacks = ("--attacks", "clean", "pgd2", "--check_images", "0")
    job = lab.submit("train", *own, *how, "--out", place["training"])
    assert job.wait() == 0, job.output
    assert "workers failed" not in job.output
    job = lab.submit("evaluate", "--checkpoint", place["training"], *attacks, "--out", place["evaluation"])
    assert job.wait() == 0, job.output
    out = lab.hosts.shared / "report"
    job = lab.submit("report", "--runs", str(sweep), *place.values(), "--out", str(out))
    assert job.wait() == 0, job.output
    assert re.search(r"Net [0-9a-f]{12} on patterns", job.output)
    assert "Logit pairing" in job.output
    lab.on_laptop(["bat-dist", "collect", "cluster/local.yaml", "--runs", str(out), "--out", "fetched"])
    fetched = lab.hosts.home("laptop") / "bat-dist/fetched/report"
    assert (fetched / "tables.csv").read_bytes() == (out / "tables.csv").read_bytes()
    assert (fetched / "report.html").stat().st_size < 10_000_000


def test_a_table_of_the_paper_and_a_study_run_by_ray_submit(lab: Lab) -> None:
    """On data and with a network of one's own, whose file the head alone has."""
    write_parts(lab.hosts.home("head"))
    out = lab.hosts.shared / "table"
    data = ["--table", "1", "--scale", "small", *OWN_DATA, "--arch", "/root/mine.py:Net", "--num_workers", "2"]
    short = ["--memorize", "num_trials=8", "epochs=15", "--train", "epochs=1", "num_steps=2", "num_val=60"]
    rows = ["--methods", "pgd_at", "bat_alpha1_beta0.2", "--seeds", "0", "--attacks", "clean", "pgd5"]
    job = lab.submit("reproduce", *data, *short, *rows, "--studies", "typical", "--out", str(out))
    assert job.wait() == 0, job.output
    assert "BAT (α = 1, β = 0.2)" in job.output
    assert "missing" not in job.output
    assert ", attempt " not in job.output  # no worker failed, and none was helped by another
    assert len(list(out.glob("evaluations/*/*/best/evaluation.json"))) == 2
    assert "PGD-AT drops and ERM does not" in job.output
    assert len(list(out.glob("study/runs/*/*/seed0/outputs.npz"))) == 2 * (3 + 2)  # methods, shares and controls


def test_a_job_of_rays_job_server_is_seen_on_metrics_ports_refuses_a_second_driver_and_stops_cleanly(
    lab: Lab, dashboard: str
) -> None:
    out = lab.hosts.shared / "job"
    job = ["ray", "job", "submit", "--address", dashboard, "--working-dir", ".", "--no-wait", "--submission-id", "one"]
    alone = ("--num_workers", "1", "--min_nodes", str(len(NODES)))
    words = [*DATA, *alone, "--epochs", "10", "--num_trials", "500", "--out", str(out)]
    lab.on_laptop([*job, "--", "python", "bat_dist/memorize.py", *words])
    in_the_middle(out, done=1)

    def scrape() -> str:
        return "".join(lab.hosts.shell(name, "curl -s http://127.0.0.1:8080/metrics", check=False) for name in NODES)

    until(lambda: "ray_bat_dist_" in scrape(), what="metrics")
    second = lab.submit("memorize", *words)
    assert second.wait() != 0
    assert "another run is writing to" in second.output
    lab.on_laptop(["ray", "job", "stop", "--address", dashboard, "one"])
    printed = lab.on_laptop(["ray", "job", "logs", "--address", dashboard, "one"])
    assert "3 nodes: bat_dist" in printed
    assert "stopped by SIGTERM: finished work is kept" in printed
    assert Folder(str(out)).read_json("progress.json")["state"] == "stopped"


def test_a_lost_connection_ends_the_driver_cleanly(lab: Lab) -> None:
    out = lab.hosts.shared / "lost"
    job = lab.submit("memorize", *SMALL, "--epochs", "30", "--out", str(out))
    in_the_middle(out, done=1)
    kill_processes(lab, "laptop", "ssh -tt")
    assert job.wait() != 0
    until(lambda: not lab.hosts.processes("head", DRIVER), what="end of the driver")
    until(lambda: not any(lab.hosts.processes(name, "ray::Worker") for name in NODES), what="idle nodes")
    assert Folder(str(out)).read_json("progress.json")["state"] == "stopped"
    assert 0 < num_done(out) < 6


def test_no_private_ray_where_the_cluster_is_gone(lab: Lab) -> None:
    """A node without its Ray: a program there must not go on alone, unseen."""
    printed = lab.hosts.shell(
        "w1", f"rm -f /tmp/ray/ray_current_cluster; bat-dist memorize {' '.join(SMALL)} --out /tmp/x; echo code $?"
    )
    assert "no Ray cluster answers at 'auto'" in printed
    assert "code 2" in printed
    assert "Traceback" not in printed


def test_what_not_every_node_can_see_is_said_before_work_starts(lab: Lab) -> None:
    """In a folder whose name would run something, if a shell of ours read it; what Ray does with a submitted `;` is
    Ray's."""
    odd = "/root/odd; touch owned $(touch owned)"
    done = lab.hosts.run("head", ["bash", "--login", "-c", 'bat-dist memorize "$@"', "x", *SMALL, "--out", odd])
    assert f"{odd} is on the driver's machine only" in done.stdout
    assert num_done(lab.hosts.home("head") / odd.removeprefix("/root/")) == 6
    assert not lab.on_head("find / -xdev -name owned 2>/dev/null", check=False).strip()
    many = ("--method", "erm", *DATA, "--epochs", "1", "--num_workers", "2", "--cpus_per_worker", "2")
    refused = lab.submit("train", *many, "--out", "/root/there")
    assert refused.wait() != 0
    assert "/root/there is not the same folder on all nodes: w1, w2 cannot write" in refused.output.replace(
        "w2, w1", "w1, w2"
    )
    assert "Traceback" not in refused.output
    assert not (lab.hosts.home("head") / "there").exists()


def test_nodes_that_do_not_come_are_waited_for_with_a_limit(lab: Lab) -> None:
    words = ("--min_nodes", "4", "--wait_minutes", "0.1", "--out", str(lab.hosts.shared / "nobody"))
    job = lab.submit("memorize", *SMALL, *words)
    assert job.wait() != 0
    assert "waiting for 4 nodes (min_nodes); the cluster has 3 nodes" in job.output
    assert "waited 0.1 minutes for 4 nodes" in job.output
    assert "Traceback" not in job.output


STRANGERS = {
    "no token": "RAY_AUTH_MODE=token",
    "a wrong token": f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'0' * 64}",
    "no authentication": "RAY_AUTH_MODE=disabled",
}


def test_a_stranger_cannot_join(lab: Lab) -> None:
    """None of them, all at once: each tries for a while."""

    def tried(stranger: str) -> str:
        home = f"/tmp/{stranger.replace(' ', '-')}"
        line = f"env HOME={home} {STRANGERS[stranger]} timeout 60 ray start --address={HEAD}:6379 --num-cpus=1"
        return lab.hosts.shell("laptop", f"mkdir -p {home}; {line}; echo code $?")

    with ThreadPoolExecutor() as pool:
        printed = dict(zip(STRANGERS, pool.map(tried, STRANGERS), strict=True))
    lab.hosts.shell("laptop", "RAY_AUTH_MODE=disabled ray stop --force")
    for stranger, words in printed.items():
        assert "code " in words, stranger
        assert "code 0" not in words, stranger
    assert lab.num_nodes() == len(NODES)


@pytest.mark.parametrize("variables", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_cannot_submit_or_look(lab: Lab, dashboard: str, variables: str) -> None:
    stranger = f"mkdir -p /tmp/s; env HOME=/tmp/s {variables}"
    submit = f"{stranger} timeout 60 ray job submit --address {dashboard} -- touch /tmp/owned; echo code $?"
    assert "code 0" not in lab.hosts.shell("laptop", submit)
    assert not (lab.hosts.base / "nodes/head/tmp/owned").exists()
    status = f"{stranger} timeout 60 ray status --address {HEAD}:6379; echo code $?"
    assert "code 0" not in lab.hosts.shell("laptop", status)


def test_the_dashboard_asks_for_the_token(lab: Lab, dashboard: str) -> None:
    ask = "curl -s -o /dev/null -w '%{{http_code}}' {header} http://127.0.0.1:8265/api/jobs/"
    token = (lab.hosts.home("laptop") / ".ray/auth_token").read_text().strip()
    assert lab.on_head(ask.format(header="")) == "401"
    assert lab.on_head(ask.format(header="-H 'Authorization: Bearer 0000'")) == "403"
    assert lab.on_head(ask.format(header=f"-H 'Authorization: Bearer {token}'")) == "200"


def test_the_dashboard_is_not_on_the_network(lab: Lab) -> None:
    printed = lab.hosts.shell("laptop", f"curl -sS --max-time 20 http://{HEAD}:8265/ 2>&1; echo code $?")
    assert printed.endswith("code 7\n")  # no connection


def test_the_token_is_the_owners_alone_and_nowhere_in_logs_or_results(lab: Lab, reference: Path) -> None:
    token = (lab.hosts.home("laptop") / ".ray/auth_token").read_text().strip()
    assert len(token) == 64
    for name in NODES:
        assert lab.hosts.shell(name, "stat -c %a ~/.ray/auth_token").strip() == "600"
        assert not lab.hosts.shell(name, f"grep -rlF {token} /tmp/ray/session_latest/ 2>/dev/null", check=False).strip()
    for path in reference.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
