"""How long imports and `--help` take, and how many modules they load.

    python benchmarks/start_time.py [--root CLONE ...]

Prints a table: the median CPU time of new processes, less that of a bare Python; with several roots, a column for each.
CPU time, since a machine that others use too makes wall-clock times of anything.  tests/api/test_package.py and
tests/test_layers.py hold what is loaded.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

VERBS = ("memorize", "train", "evaluate", "tune", "study", "reproduce", "report", "plan", "export", "collect")
STARTS = {
    "import bat_dist": "import bat_dist",
    "from bat_dist import memorize": "from bat_dist import memorize",
    "from bat_dist import train, evaluate": "from bat_dist import train, evaluate",
    "from bat_dist import load_model, pgd": "from bat_dist import load_model, pgd",
    "import torch": "import torch",
    **{f"bat-dist {verb} --help": f"from bat_dist.cli import main; main(['{verb}', '--help'])" for verb in VERBS},
}


def cpu_seconds(code: str, root: Path, times: int) -> float | None:
    """The median of so many runs; None if the code does not run there."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, cwd=root, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ran.returncode:
            return None
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(found)


def modules(code: str, root: Path) -> int:
    code = f"{code}\nimport sys; sys.stderr.write(f'\\n{{len(sys.modules)}}')"
    environment = os.environ | {"PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return int(ran.stderr.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parents[1]
    parser.add_argument("--root", nargs="+", type=Path, default=[here], help="clones that are compared")
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    roots = [root.resolve() for root in asked.root]
    bare = cpu_seconds("pass", here, asked.times) or 0.0
    print("| start | " + " | ".join(f"{root.name}: CPU s" for root in roots) + " | modules |")
    print("| --- |" + " --- |" * (len(roots) + 1))
    for name, code in STARTS.items():
        times = [cpu_seconds(code, root, asked.times) for root in roots]
        cells = ["" if seconds is None else f"{max(0.0, seconds - bare):.2f}" for seconds in times]
        number = modules(code, roots[-1]) if times[-1] is not None else ""
        print(f"| `{name}` | {' | '.join(cells)} | {number} |", flush=True)


if __name__ == "__main__":
    main()
