"""Where the report's numbers come from: every evaluation, with the training behind it where that is known."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bat_dist.reporting.page import as_texts, plain_text
from bat_dist.results.evaluation_file import FoundEvaluation
from bat_dist.results.find import Found, Training
from bat_dist.results.labels import method_name
from bat_dist.results.rows import TRAINED_BY, flat, which_of
from bat_dist.storage.provenance import without_passwords
from bat_dist.training.files import FinishedRun


class SourceEntry(NamedTuple):
    """An evaluation for the page.  id: the anchor that numbers lead to; facts: texts by what they tell."""

    id: str
    words: str
    facts: Mapping[str, str]


class Sources:
    """All evaluations, numbered."""

    def __init__(self, found: Found) -> None:
        by_identity = {_run_key(training.identity): training for training in found.trainings if training.identity}
        self._entries = {
            one.place: (f"source-{number}", one, by_identity.get(_run_key(flat(one.document.facts))))
            for number, one in enumerate({one.place: one for one in found.evaluations}.values(), 1)
        }

    def id_of(self, one: FoundEvaluation) -> str:
        """The page's anchor."""
        return self._entries[one.place][0]

    def entries(self) -> Iterator[SourceEntry]:
        """All evaluations, in their order."""
        for anchor, evaluation, training in self._entries.values():
            facts = evaluation.document.facts
            method = method_name(str(facts.get("method") or facts.get("model") or facts.get("weights")))
            seed = f", seed {facts['seed']}" if "seed" in facts else ""
            words = f"{method}{seed}, {which_of(evaluation)} checkpoint: {without_passwords(evaluation.place)}"
            yield SourceEntry(anchor, words, as_texts(_about(evaluation, training)))


def _about(evaluation: FoundEvaluation, training: Training | None) -> Mapping[str, Any]:
    document = evaluation.document
    about = {
        "evaluation": evaluation.place,
        "evaluated by": _typed(document.origin),
        **_machine(document.origin),
        "network": document.network,
        "checkpoint": f"{document.settings.get('checkpoint')} ({which_of(evaluation)})",
        "attacks": ", ".join(f"{row.attack} {row.seconds:.0f} s" for row in document.rows),
        "failed checks": ", ".join(check.name for check in document.checks if not check.passed),
    }
    if training:
        run = training.run
        about |= {"training": training.place, "trained by": _typed(run.origin)}
        machine = _machine({**run.origin, "computed_on": list(run.computed_on)})
        about |= {f"training {key}": value for key, value in machine.items()}
        about |= {"training seconds": run.seconds if isinstance(run, FinishedRun) else None, "trained from": run.begun}
    settings = {key: value for key, value in flat(document.facts).items() if key.partition(".")[0] in TRAINED_BY}
    return {**about, "trained with": plain_text(settings)}


def _typed(document: Mapping[str, Any]) -> str:
    """The command; nothing where the first releases noted that of Ray's worker."""
    command = str(document.get("command") or "")
    return "" if command.startswith("default_worker.py") else command


def _machine(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in ("git_revision", "bat_dist", "cpu", "cpus", "system", "computed_on")}


def _run_key(identity: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another: its method and settings, data, architecture and seeds."""
    names = ("method", "fingerprint", "arch", "epochs", "seed", "val_seed", "scores", "num_train")
    own = {name: value for name, value in identity.items() if name.startswith(("method_settings.", "recipe."))}
    pairs = {**own, **{name: identity.get(name) for name in names}}
    return tuple(sorted((name, repr(value)) for name, value in pairs.items()))
