"""Several hosts on this machine, for drills: each has an address, a home, /tmp, /dev/shm and an sshd of its own.

A host is a set of Linux namespaces, so it can be switched off, and its cable pulled.  All see the same files elsewhere,
`Hosts.shared` among them: that is their shared storage.  Needs root, iproute2, util-linux, openssh-server and rsync.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.waiting import PATIENCE

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("ip", "nsenter", "unshare", "rsync", "ssh", "sshd", "ssh-keygen", "ss", "tmux")
SMALL_BYTES = 8 * 2**20
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INIT = """\
set -e
hostname {name}
mount --bind {base}/hosts /etc/hosts
mount --bind {base}/resolv.conf /etc/resolv.conf
{kept}
mount --rbind {host}/root /root
mount -t tmpfs -o size=3g shm /dev/shm
mount --bind {host}/run /run
mkdir -p /run/sshd
mount --rbind {host}/tmp /tmp
mount -t proc proc /proc
cd /root
/usr/sbin/sshd -f /dev/null -o HostKey={base}/host_key -o PidFile=none -o PermitRootLogin=yes -o UsePAM=no \\
  -o PasswordAuthentication=no -o AuthorizedKeysFile=.ssh/authorized_keys -o StrictModes=no -E /tmp/sshd.log
while :; do sleep 100000 & wait $!; done
"""


def missing() -> str | None:
    """Why hosts cannot be made here, or None."""
    if os.geteuid() != 0:
        return "several hosts on one machine need root"
    if absent := [tool for tool in TOOLS if not shutil.which(tool, path=SYSTEM_PATH)]:
        return f"not installed: {', '.join(absent)} (make cluster-tools)"
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"namespaces are not allowed here: {probe.stderr.strip()}" if probe.returncode else None


class Hosts:
    """Hosts by name, on one network.

    `with Hosts({"head": "10.78.0.2"}) as hosts: hosts.run("head", ["hostname"])`
    """

    def __init__(self, addresses: Mapping[str, str]):
        self.addresses = dict(addresses)
        # Neither in /tmp nor in /root, which every host has for itself.
        self.base = Path(tempfile.mkdtemp(prefix="bat-dist-hosts-", dir="/var/tmp"))
        self.shared = self.base / "shared"  # storage that all hosts share
        self.small = self.base / "small"  # the same, with little room
        self.prefix = f"bd{os.getpid() % 100000}"
        self._outer: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Hosts":
        self.shared.mkdir()
        self.small.mkdir()
        _call("mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "small", self.small)
        for key in ("id", "host_key"):
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / key)
        lines = ["127.0.0.1 localhost", *(f"{ip} {name}" for name, ip in self.addresses.items())]
        (self.base / "hosts").write_text("\n".join(lines) + "\n")
        (self.base / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # refuses at once
        _call("ip", "netns", "add", self._switch)
        _call("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
        for link in ("br0", "lo"):
            _call("ip", "-n", self._switch, "link", "set", link, "up")
        try:
            for name in self.addresses:
                self.switch_on(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._outer):
            self.switch_off(name)
        for name in (*self.addresses, "sw"):
            subprocess.run(["ip", "netns", "del", self._netns(name)], capture_output=True)
        subprocess.run(["umount", "--lazy", self.small], capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)

    def switch_on(self, name: str) -> None:
        """Start a host; what was in its home is still there, /tmp is empty."""
        host, address, netns = self.base / "nodes" / name, self.addresses[name], self._netns(name)
        for folder in ("tmp", "run"):
            shutil.rmtree(host / folder, ignore_errors=True)
        for folder, mode in (("root", 0o700), ("root/.ssh", 0o700), ("tmp", 0o1777), ("run", 0o755)):
            (host / folder).mkdir(parents=True, exist_ok=True)
            (host / folder).chmod(mode)
        if not (host / "root/.bashrc").exists():
            shutil.copy(self.base / "id.pub", host / "root/.ssh/authorized_keys")
            (host / "root/.profile").write_text('[ -n "$BASH" ] && . ~/.bashrc\n')
            (host / "root/.bashrc").write_text("export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0\n")
        subprocess.run(["ip", "netns", "del", netns], capture_output=True)
        _call("ip", "netns", "add", netns)
        _call("ip", "-n", netns, "link", "set", "lo", "up")
        _call(
            "ip", "-n", netns, "link", "add", "eth0", "type", "veth", "peer", "name", f"v-{name}", "netns", self._switch
        )
        _call("ip", "-n", self._switch, "link", "set", f"v-{name}", "master", "br0", "up")
        _call("ip", "-n", netns, "addr", "add", f"{address}/24", "dev", "eth0")
        _call("ip", "-n", netns, "link", "set", "eth0", "up")
        _call(
            "ip", "-n", netns, "route", "add", "default", "via", address, "dev", "eth0"
        )  # so that Ray finds its address
        init = host / "init.sh"
        init.write_text(INIT.format(name=name, base=self.base, host=host, kept="\n".join(self._kept(host))))
        unshared = [
            "unshare",
            "--kill-child",
            "--pid",
            "--fork",
            "--mount",
            "--uts",
            "--ipc",
            "--propagation",
            "private",
            "bash",
            init,
        ]
        with (host / "init.log").open("wb") as log:
            self._outer[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", netns, *unshared],  # ends with this process
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(100):
            listening = _call("ip", "netns", "exec", netns, "ss", "-Hltn", "sport = :22")
            if listening:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start: {(host / 'init.log').read_text()}")

    def replace(self, name: str) -> None:
        """Start another machine at the address of one that is off: its disk is empty."""
        shutil.rmtree(self.base / "nodes" / name)
        self.switch_on(name)

    def switch_off(self, name: str) -> None:
        """Pull the plug: every process of the host is gone at once, nothing is closed or said goodbye."""
        outer = self._outer.pop(name)
        os.kill(self._first_process(outer.pid), signal.SIGKILL)
        outer.wait(timeout=PATIENCE)
        subprocess.run(["ip", "netns", "del", self._netns(name)], capture_output=True)

    def cut(self, name: str) -> None:
        """Pull the network cable."""
        _call("ip", "-n", self._switch, "link", "set", f"v-{name}", "down")

    def heal(self, name: str) -> None:
        """Put the cable back."""
        _call("ip", "-n", self._switch, "link", "set", f"v-{name}", "up")

    def command(
        self, name: str, words: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """The words that run a command on a host, with its home as folder."""
        variables = {"HOME": "/root", "USER": "root", "TERM": "xterm", "LANG": "C.UTF-8", "PATH": SYSTEM_PATH}
        variables |= dict(environment or {})
        enter = ["nsenter", "-t", str(self._first_process(self._outer[name].pid)), "-m", "-u", "-i", "-n", "-p"]
        clean = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        return [*enter, *clean, "bash", "-c", 'cd /root; exec "$@"', "bash", *map(str, words)]

    def run(
        self,
        name: str,
        words: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; stdout and stderr come together.  Raises AssertionError if it fails."""
        done = subprocess.run(
            self.command(name, words, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, (
            f"{name}: {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}"
        )
        return done

    def shell(self, name: str, line: str, *, timeout: float = PATIENCE, check: bool = True) -> str:
        """What a line prints in a login shell of a host."""
        return self.run(name, ["bash", "--login", "-c", line], timeout=timeout, check=check).stdout

    def processes(self, name: str, pattern: str) -> list[int]:
        """Process numbers, as this machine counts them, of the host's processes whose command line holds a text."""
        space = Path(f"/proc/{self._first_process(self._outer[name].pid)}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == space:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if pattern in words:
                        found.append(int(entry.name))
            except OSError:  # it has just ended
                continue
        return sorted(found)

    def put(self, name: str, path: str, content: bytes | str) -> None:
        """Write a file below /root of a host."""
        target = self.home(name) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def home(self, name: str) -> Path:
        """Where this machine sees the /root of a host."""
        return self.base / "nodes" / name / "root"

    @property
    def _switch(self) -> str:
        return self._netns("sw")

    def _netns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _kept(self, host: Path) -> list[str]:
        """What lies in a folder that each host has for itself, and is needed: brought back into its place."""
        kept = []
        interpreter = Path(sys.executable).resolve().parents[1]
        for path in {Path(sys.prefix), interpreter, REPOSITORY}:
            if path.parts[1] in ("root", "tmp"):
                kept.append(f"mkdir -p {host}{path}; mount --bind {path} {host}{path}")
        return kept

    @staticmethod
    def _first_process(outer: int) -> int:
        """The host's process 1, as this machine counts it."""
        for _ in range(100):
            children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.05)
        raise RuntimeError("the host has no process")


def _call(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout
