"""What a result folder holds, and whether a driver is at work on it, in words, from its files alone.

`describe` tells of a folder of `memorize`; `training.status` and `results.status` tell of others.
"""

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from bat_dist.errors import UserError
from bat_dist.memorization.reliability import reliability_in_words, split_half_reliability
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import settings_of
from bat_dist.storage.rows import RowStatus, RowStore
from bat_dist.storage.unit_log import log_name
from bat_dist.wording import of_bytes, one_of

STORES = {"trials": "trials", "ensemble": "members"}  # folder -> what its rows are called
UNITS = "units"  # folder of an evaluation's stores
PROGRESS = "progress.json"  # the driver's sign of life, written every 15 s
SEQUENTIAL = "sequential.json"  # what the rule of `--num_trials auto` has found
SILENT = 60.0  # seconds without one after which the driver counts as gone
GO_ON = "the same command goes on"
MOST_READ = 2**30  # bytes of trials that are read to tell how a folder is


def failure_name(what: str, row: int) -> str:
    """The file in which a row that was given up is noted with its reason."""
    return f"failed/{what}-{row}.json"


def failures(folder: Folder, what: str, complete: Bool[np.ndarray, " rows"]) -> dict[int, str]:
    """Rows that were given up, with their reasons; not those that are complete.

    A row that was tried again is written first, and its note removed then: a driver that is killed in between leaves
    the note of a row that is there.
    """
    notes = [folder.read_json(f"failed/{name}") for name in folder.names(f"failed/{what}-*.json")]
    reasons = {note["row"]: note["reason"] for note in sorted(notes, key=lambda note: note["row"])}
    return {row: reason for row, reason in reasons.items() if row >= len(complete) or not complete[row]}


def describe(folder: Folder, *, clock: Callable[[], float] = time.time) -> str:
    """Some lines on the driver, and a few per store.  Raises UserError if the folder holds no store."""
    stores = {STORES[name]: store for name in STORES if (store := RowStore.existing(folder / name))}
    if not stores:
        raise UserError(f"{folder} holds no trials: run bat-dist memorize --out {folder} first")
    status = {what: store.status() for what, store in stores.items()}
    lines = [*describe_driver(folder, status, clock)]
    for what, store in stores.items():
        rows = np.flatnonzero(status[what].complete)
        first = settings_of(folder, "memorize").get("first_trial") if what == STORES["trials"] else None
        if first and first.value:
            lines.append(
                f"{store.folder}: {len(rows)} {what} complete, of numbers {first.value} to {store.num_rows - 1}"
            )
        else:
            lines.append(f"{store.folder}: {len(rows)} of {store.num_rows} {what} complete")
        if len(rows) and {"mask", "train_correct"} <= store.fields.keys():
            lines.append(f"  reliability of memorization: {_reliability(store, rows)}")
        if what == STORES["trials"] and folder.exists(SEQUENTIAL):
            lines.append(f"  num_trials auto: {rule_in_words(folder.read_json(SEQUENTIAL), len(rows))}")
        if damaged := status[what].damaged:
            lines.append(f"  damaged, to be run again: {', '.join(map(str, damaged))}")
        for row, reason in failures(folder, what, status[what].complete).items():
            known = f" (its log: {name})" if folder.exists(name := log_name(what, row)) else ""
            lines.append(f"  {one_of(what)} {row} failed: {reason}{known}")
        lines.append("  " + ", ".join(f"{key}={value}" for key, value in store.identity.items()))
    return "\n".join(lines)


def _reliability(store: RowStore, rows: Int64[np.ndarray, " rows"]) -> str:
    """In words; of a store that is too large to be read for it, where it is to be found."""
    size = 2 * len(rows) * store.fields["mask"].shape[0]
    if size > MOST_READ:
        return f"see summary.json; it is not computed here from {of_bytes(size)} of trials"
    reliability = split_half_reliability(store.read("mask", rows), store.read("train_correct", rows))
    return reliability_in_words(reliability, len(rows))


def rule_in_words(found: Mapping[str, Any], num_finished: int) -> str:
    """What a rule wants, and how far the trials are from it.

    found: the content of `sequential.json`. num_finished: trials that are finished, with those that do not count.
    """
    trials, last = found["num_trials"], found["looks"][-1]
    shares = f"{last['undecided']:.1%} undecided, {last['above']:.1%} above and {last['below']:.1%} not"
    reliability = "unknown" if last["reliability"] is None else f"{last['reliability']:.2f}"
    state = f"{shares}, median width {last['median_width']:.2f}, reliability {reliability}"
    more = f"; {num_finished - trials:,} more are finished and not used" if num_finished > trials else ""
    if found["is_met"]:
        most = found["rule"]["max_trials"]
        return f"{trials:,} of at most {most:,} trials are enough for {found['goal']} ({state}){more}"
    if found["is_over"]:
        return f"{trials:,} trials, the most allowed, are not enough for {found['goal']} ({state})"
    return f"after {last['num_trials']:,} trials {state}; wanted is {found['goal']}"


def describe_driver(
    folder: Folder,
    status: Mapping[str, RowStatus],
    clock: Callable[[], float] = time.time,
    *,
    is_complete: bool = False,
) -> Iterable[str]:
    """Say whether a driver is at work there, on what, or how it ended; nothing if none has ever been.

    status: what became of the rows in the stores that it may have filled. is_complete: all that it was to do is there.
    """
    if not folder.exists(PROGRESS):  # a folder of an older version, or of imported scores
        return ()
    try:
        progress = folder.read_json(PROGRESS)
        age = max(0.0, clock() - datetime.fromisoformat(progress["written"]).timestamp())
        if progress["state"] == "running" and age <= SILENT:
            return list(_at_work(progress, age))
        there = status.get(progress["what"])
        first = progress.get("first", 0)  # not in files of earlier versions
        asked = slice(first, first + progress["total"])
        complete = is_complete or (there is not None and bool(there.complete[asked].all()))
        return [f"not running: {_last_word(progress, ago(age), complete=complete)}"]
    except (UserError, LookupError, TypeError, ValueError) as error:
        return [f"{PROGRESS} is not as a driver writes it ({error}): nothing is known of the driver"]


def _at_work(progress: Mapping[str, Any], age: float) -> Iterable[str]:
    what = progress["what"]
    yield f"running: driver {progress['pid']} on {progress['host']}, last sign of life {ago(age)}"
    if progress["done"] is None:
        yield "  starting: connecting to Ray, or waiting for nodes"
        return
    rate = f", {progress['per_hour']:,.0f} {what}/h" if progress["per_hour"] else ""
    left = progress["seconds_left"]
    left = "" if left is None else f", {duration(max(0.0, left - age))} left"
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    yield f"  {progress['done']:,} of {progress['total']:,} {what}{rate}{left}{failed}"
    hosts: dict[str, list[str]] = {}
    for now in progress["running"]:
        share = f", {now['share']:.0%} done" if now.get("share") else ""
        hosts.setdefault(now["host"], []).append(f"{now['unit']} (for {duration(now['seconds'] + age)}{share})")
    for host, units in sorted(hosts.items()):
        yield f"  on {host}: {what} {', '.join(units)}"
    if not hosts:
        yield f"  no {what} at work: workers are starting, or waiting for room"


def _last_word(progress: Mapping[str, Any], when: str, *, complete: bool) -> str:
    """How a driver that is not at work ended.  complete: all that it was to do is in the store."""
    what, total, failed = progress["what"], progress["total"], progress["failed"]
    driver = f"driver {progress['pid']} on {progress['host']}"
    everything = f"all {total:,} {what}" if total > 1 else f"all {what}"
    match progress["state"]:
        case "done":
            return f"{driver} ended {when}, {everything} done"
        case "incomplete":
            return f"{driver} ended {when}, {failed:,} of {total:,} {what} failed; the same command tries them again"
        case "stopped":
            return f"{driver} was stopped {when} ({progress['reason']}); {GO_ON}"
        case "running" if complete:
            return f"{driver} gave its last sign of life {when}, and {everything} are done"
        case "running":
            since = f"no sign of life from {driver} since {progress['written']} ({when})"
            clocks = "" if progress["host"] == socket.gethostname() else ", or the two machines' clocks differ"
            return f"{since}: it was killed or its machine was lost{clocks}; {GO_ON}"
    raise ValueError(f"state {progress['state']!r}")


def ago(seconds: float) -> str:
    """Seconds as `4 s ago`, `3 h ago`."""
    for size, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} s ago"


def duration(seconds: float) -> str:
    """Seconds as `0:01:09`, in hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
