"""The machine that measurements are made on.  Imports neither torch nor ray until it is asked."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measurement import MachineClass

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "ray", "ffcv", "pyautoattack")
RIVALS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox")
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


@dataclass(frozen=True)
class Machine:
    """Where measurements were made.

    machine_class: what torch computes bf16 with: "amx" (tiles), "avx512" (AVX-512 BF16 or the like), or "avx2" without
    any; results are compared within a class and a number of cores. load: processes that wanted a core, averaged over
    the last minute before the start. environment: variables that decide how many threads there are and how they wait.
    """

    machine_class: MachineClass
    cpu: str
    cores: int
    instructions: str
    load: float
    versions: dict[str, str]
    environment: dict[str, str]

    @property
    def key(self) -> str:
        """Under which results are recorded."""
        return f"{self.machine_class}, {self.cores} cores"

    def lines(self) -> list[str]:
        """For the head of a table."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        environment = ", ".join(f"{name}={value}" for name, value in self.environment.items())
        return [
            f"{self.cpu}, {self.cores} cores, {self.instructions}; class {self.machine_class}",
            f"load at the start {self.load:.2f}; {environment or 'no variable sets the number of threads'}",
            versions,
        ]


def this_machine() -> Machine:
    """What this process runs on; imports torch."""
    import torch

    from bat_dist.storage.provenance import cpu_name
    from bat_dist.training.precision import this_hardware

    has_bf16 = this_hardware().has_bf16
    capability = torch.backends.cpu.get_cpu_capability()
    return Machine(
        machine_class="avx2" if not has_bf16 else "amx" if _has_tiles() else "avx512",
        cpu=cpu_name(),
        cores=num_cores(),
        instructions=f"{capability} {'with' if has_bf16 else 'without'} bf16",
        load=os.getloadavg()[0],
        versions={"Python": platform.python_version()} | _versions((*PACKAGES, *RIVALS)),
        environment={name: os.environ[name] for name in THREADS if name in os.environ},
    )


def _has_tiles() -> bool:
    """Whether the CPU has AMX, and oneDNN was not told to do without."""
    import torch

    from bat_dist.training.precision import isa_limit

    allowed = any(word in isa_limit() for word in ("ALL", "DEFAULT", "AMX"))
    return allowed and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
