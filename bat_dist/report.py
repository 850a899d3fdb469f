"""All results below some folders as tables and one page: methods with error bars, beside the paper's numbers.

    bat-dist report --runs runs results --out report
    ray submit cluster/gpu.yaml bat_dist/report.py -- --runs /shared/runs --out /shared/report
    bat-dist report --watch runs --out report

It runs nothing, and writes nothing but the report.
"""

import time
from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Find every result below the folders, put those together that belong together, and write tables (Markdown, CSV, "
    "LaTeX, RobustBench's JSON) and report.html, one file that needs no network."
)
EXAMPLES = """
bat-dist report --runs runs results --out report
bat-dist report --watch runs --out report
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done) or 2 (bad input, or nothing to report)."""
    from bat_dist.config import parse
    from bat_dist.settings.report import ReportSettings

    settings, _ = parse(ReportSettings, argv, prog="bat-dist report", description=DESCRIPTION, examples=EXAMPLES)
    from bat_dist.errors import UserError
    from bat_dist.reporting.report import write_report
    from bat_dist.results.compare import compare
    from bat_dist.results.find import find_results
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver
    from bat_dist.workers.collecting import remember_on_head

    folder = Folder(settings.place)
    shown = ""
    while True:
        found = find_results(settings.folders)
        if found.is_empty and not settings.watch:
            raise UserError(
                f"there is no result of bat-dist below {', '.join(settings.folders)}"
                + "".join(f"\n{one.place}: {one.reason}" for one in [*found.unfinished, *found.left_out][:10])
            )
        compared = compare(found, reference=settings.reference)
        with only_driver(folder):
            text = write_report(folder, found, compared, refresh=settings.every if settings.watch else 0)
            remember_on_head(folder)
        if text != shown:
            print(text, flush=True)
        if not settings.watch:
            return 0
        shown = text
        time.sleep(settings.every)


if __name__ == "__main__":
    run_installed("report")
