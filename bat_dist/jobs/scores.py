"""From settings to score files: trials or ensemble on Ray, then the estimates of `memorization`."""

import logging
from io import BytesIO
from typing import Any

import numpy as np

from bat_dist.artifacts.scores import (
    FELDMAN_ZHANG,
    INFLUENCE_TOP,
    MEMORIZATION,
    EnsembleScores,
    LeaveOutScores,
    SampleNames,
    read_memorization,
    write_ensemble_scores,
    write_influence,
    write_influence_top,
    write_memorization,
    write_memorization_tables,
    write_typicality,
)
from bat_dist.artifacts.streamed_trials import read_trials
from bat_dist.artifacts.trak import TRAK_FIELDS
from bat_dist.data.datasets import Dataset
from bat_dist.errors import RunError, UserError
from bat_dist.jobs.ensemble_fields import DYNAMICS
from bat_dist.jobs.fill_rows import Filled
from bat_dist.jobs.fresh import OF_STOPPING, remove_memorization
from bat_dist.jobs.influence import leave_out_influences
from bat_dist.jobs.memorize import TRIALS, VERB, fill_ensemble, fill_trials
from bat_dist.memorization.agreement import alignment, ensemble_confidence, ensemble_disagreement
from bat_dist.memorization.attribution import self_influence
from bat_dist.memorization.estimate import Memorization, estimate_memorization
from bat_dist.memorization.exchange import (
    MAX_BYTES,
    feldman_zhang,
    load_feldman_zhang,
    save_feldman_zhang,
)
from bat_dist.memorization.influence_parts import num_pairs
from bat_dist.memorization.sequential import guarantee
from bat_dist.memorization.stopping import OrderedTrials
from bat_dist.memorization.typicality import SetRule, sets_of
from bat_dist.settings.memorize import MemorizeSettings
from bat_dist.storage.compaction import compact_if_complete
from bat_dist.storage.files import Folder
from bat_dist.storage.recorded import note_settings
from bat_dist.storage.rows import RowStore
from bat_dist.wording import bytes_of, counted

log = logging.getLogger(__name__)

_WAY_OUT = "use another --out, or --fresh to replace them"


def leave_out_scores(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[LeaveOutScores, Filled]:
    """Run the missing trials, estimate from all complete ones, also those beyond `num_trials`, write the score files.

    With `num_trials` auto they are estimated from the first trials alone, as many as its rule found enough.
    Raises UserError if the folder holds scores that were imported, RunError if not one trial is complete.
    """
    check_not_imported(folder, settings)
    store, filled = fill_trials(folder, dataset, settings)
    _check_any_complete(filled, "trial")
    labels, memory = (dataset.train.labels, dataset.test.labels), bytes_of(settings.scores_memory)
    enough = filled.enough
    numbers = np.array(enough.numbers) if enough else None
    trials = read_trials(store, *labels, memory=memory, numbers=numbers)
    if enough:
        _say_enough(folder, enough, int(store.status().complete.sum()), settings.mask_plan)
    else:
        _say_more(folder, len(trials.numbers), settings.most_trials, "trials")
        folder.remove_files(OF_STOPPING)
    memorization = estimate_memorization(trials.mask, trials.train_correct)
    influences = leave_out_influences(folder, dataset, settings, store, trials, memorization.mem)
    rule = SetRule(settings.typicality, level=settings.typicality_level)
    sets = sets_of(rule, influences.largest, memorization.mem, trials.mask, trials.test_correct, *labels)
    scores = LeaveOutScores(memorization, influences.pairs, trials, sets, influences.top, enough)
    _write(folder, dataset, scores)
    size = 4 * num_pairs(*labels, same_class=True)
    if size <= min(MAX_BYTES, memory // 3):  # it is there three times before it is written
        buffer = BytesIO()
        save_feldman_zhang(buffer, feldman_zhang(memorization.mem, trials.mask, trials.test_correct, *labels))
        folder.write(FELDMAN_ZHANG, buffer.getvalue())
    else:
        folder.remove(FELDMAN_ZHANG)  # of an earlier call, which had fewer trials and more memory
    if not filled.failed:
        compact_if_complete(store)
    return scores, filled


def check_not_imported(folder: Folder, settings: MemorizeSettings) -> None:
    """Raise UserError if the folder holds scores that were imported, which those of trials would replace."""
    if not settings.fresh and folder.exists(MEMORIZATION) and RowStore.existing(folder / TRIALS) is None:
        raise UserError(f"{folder} holds scores without trials, which were imported: {_WAY_OUT}")


def imported_scores(folder: Folder, dataset: Dataset, settings: MemorizeSettings, file: str) -> LeaveOutScores:
    """Scores from a Feldman-Zhang file: no counts and no standard errors, since it has none.

    Raises UserError if the file is missing, damaged, or of other samples or another order, or if the folder holds other
    scores.
    """
    try:
        found = load_feldman_zhang(
            file, train_labels=dataset.train.labels, test_labels=dataset.test.labels, allow_undefined=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"import_scores {file}: {error}") from None
    if settings.fresh:
        remove_memorization(folder)
    trials = RowStore.existing(folder / TRIALS)
    if trials is not None and trials.is_begun():
        raise UserError(f"{folder} holds trials, whose scores those of {file} would replace: {_WAY_OUT}")
    if folder.exists(MEMORIZATION) and not np.array_equal(
        folder.read_npz(MEMORIZATION)["mem"], found.mem, equal_nan=True
    ):
        raise UserError(f"{folder} holds other scores than {file}: {_WAY_OUT}")
    nothing, zeros = np.full(len(found.mem), np.nan), np.zeros(len(found.mem), np.int64)
    memorization = Memorization(found.mem, nothing, zeros, zeros, nothing, nothing)
    scores = LeaveOutScores(memorization, found.pairs_above(settings.influence_threshold))
    note_settings(folder, VERB, settings)
    _write(folder, dataset, scores)
    return scores


def ensemble_scores(folder: Folder, dataset: Dataset, settings: MemorizeSettings) -> tuple[EnsembleScores, Filled]:
    """Train the missing members, score the samples, and compare with `memorization.npz` where the folder has one.

    All scores that the members can give are written, whichever was asked for.
    """
    store, filled = fill_ensemble(folder, dataset, settings)
    _check_any_complete(filled, "member")
    members = np.flatnonzero(store.status().complete)
    _say_more(folder, len(members), settings.num_members, "members")
    probabilities = store.read("train_probabilities", members)
    scores = {
        "disagreement": ensemble_disagreement(probabilities),
        "confidence": 1 - ensemble_confidence(probabilities),
        "true_class_confidence": 1 - ensemble_confidence(probabilities, dataset.train.labels),
        **{name: store.read(name, members).mean(axis=0, dtype=np.float64) for name in DYNAMICS if name in store.fields},
    }
    _, _, out_to_loss, leverage = TRAK_FIELDS
    if leverage in store.fields:
        scores["self_influence"] = self_influence(store.read(leverage, members), store.read(out_to_loss, members))
    write_ensemble_scores(folder, SampleNames.of(dataset), scores)
    mem = read_memorization(folder, dataset.fingerprint)["mem"] if folder.exists(MEMORIZATION) else None
    alignments = {} if mem is None else {name: alignment(score, mem) for name, score in scores.items()}
    if not filled.failed:
        compact_if_complete(store)
    return EnsembleScores(scores, mem, alignments), filled


def _say_more(folder: Folder, found: int, asked: int, what: str) -> None:
    """Say so if there is more than was asked for: scores are never replaced by those of fewer."""
    if found > asked:
        log.info("%s holds %s finished %s: all are used, not %s only", folder, f"{found:,}", what, f"{asked:,}")


def _say_enough(folder: Folder, enough: OrderedTrials, found: int, mask_plan: str) -> None:
    """Say which trials the scores are of, why, and with what promise."""
    used, most = len(enough.numbers), enough.rule.max_trials
    if enough.is_met:
        log.info("%s are enough for %s: %s saved", counted(used, "trial"), enough.rule.in_words, f"{most - used:,}")
    else:
        log.warning("%s were not enough for %s: raise max_trials", counted(used, "trial"), enough.rule.in_words)
    if found > used:
        text = "%s holds %s finished trials: the scores are those of the first %s; a number for num_trials uses all"
        log.info(text, folder, f"{found:,}", f"{used:,}")
    log.info("%s", guarantee(mask_plan))


def _check_any_complete(filled: Filled, what: str) -> None:
    if not filled.kept + filled.computed:
        first, reason = min(filled.failed.items())
        raise RunError(f"no {what} is complete: {what} {first} failed with {reason}")


def _write(folder: Folder, dataset: Any, scores: LeaveOutScores) -> None:
    write_memorization(folder, SampleNames.of(dataset), scores.memorization, scores.trials, scores.enough)
    write_influence(folder, scores.pairs, dataset.fingerprint)
    if scores.top is None:
        folder.remove(INFLUENCE_TOP)  # of an earlier call, which asked for it
    else:
        write_influence_top(folder, scores.top, dataset.fingerprint)
    write_memorization_tables(folder, dataset, scores)
    if scores.sets is not None:
        write_typicality(folder, scores.sets, dataset.fingerprint)
