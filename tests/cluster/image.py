"""What a machine brings along in the drills: Python, torch and Ray, as an image in a cloud would.

`cluster/install.sh` puts the package on it, as on any machine: from the source, not editable, into a virtual
environment.  The environment is there beforehand, and finds the packages of the one that the tests run in; no host of
the drills reaches the internet.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.cluster.hosts import REPOSITORY, Hosts

PIP = "[global]\nno-index = true\nno-build-isolation = false\n"  # pip reads this one as it is spelt: not isolated
STORE = "http://10.78.0.20:5000"
SECRET = "a-secret-of-the-drills"
SCRIPT = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


def prepare_node(hosts: Hosts, name: str) -> None:
    """A machine for `ray up` to make a node of."""
    home, venv = hosts.home(name), Path("/root/.bat-dist/venv")
    inside = home / ".bat-dist/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", inside], check=True)
    # Made on this machine, used on the host: it must know itself by the host's path.
    site = next(inside.glob("lib/python*/site-packages"))
    (site / "image.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for script in inside.glob("bin/activate*"):
        script.write_text(script.read_text().replace(str(inside), str(venv)))
    for command, module in (("ray", "ray.scripts.scripts"),):
        path = inside / "bin" / command
        path.write_text(SCRIPT.format(python=venv / "bin/python", module=module))
        path.chmod(0o755)
    hosts.put(name, ".config/pip/pip.conf", PIP)
    prepare_credentials(hosts, name)


def prepare_credentials(hosts: Hosts, name: str) -> None:
    """What an object store asks for, where AWS looks for it."""
    hosts.put(name, ".aws/config", f"[default]\nregion = us-east-1\nendpoint_url = {STORE}\n")
    hosts.put(name, ".aws/credentials", f"[default]\naws_access_key_id = drill\naws_secret_access_key = {SECRET}\n")


def prepare_laptop(hosts: Hosts, name: str, *, head: str, workers: list[str]) -> None:
    """Where the user sits: a clone of the repository, with the three lines of cluster/local.yaml edited, and a key."""
    home = hosts.home(name)
    prepare_credentials(hosts, name)
    shutil.copy(hosts.base / "id", home / ".ssh/id_ed25519")
    (home / ".ssh/id_ed25519").chmod(0o600)
    hosts.put(name, ".bashrc", f". {sys.prefix}/bin/activate\nexport RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token\n")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True)
    for file in listed.stdout.decode().split("\0"):
        if file and (REPOSITORY / file).is_file() and not file.startswith("tests/"):
            target = home / "bat-dist" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, target)
    yaml = home / "bat-dist/cluster/local.yaml"
    edited = []
    for line in yaml.read_text().splitlines():
        key = line.strip().partition(":")[0]
        new = {"head_ip": hosts.addresses[head], "ssh_user": "root"}
        new["worker_ips"] = f"[{', '.join(hosts.addresses[worker] for worker in workers)}]"
        indent = line[: len(line) - len(line.lstrip())]
        edited.append(f"{indent}{key}: {new[key]}" if "# EDIT" in line else line)
    yaml.write_text("\n".join(edited) + "\n")
