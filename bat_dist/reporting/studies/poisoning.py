"""The study `poisoning` (Fig. 3, App. B.3): atypical samples that look like another class, and what people say."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bat_dist.errors import UserError
from bat_dist.figures.galleries import LookAlike, look_alike_gallery
from bat_dist.reporting.studies.annotation_page import PAGE, annotation_page
from bat_dist.reporting.studies.people import (
    AGREEMENT,
    ANSWER_TABLE,
    LABEL_TABLE,
    analyse_answers,
    analyse_labels,
    answer_lines,
    draw_labels,
    label_lines,
)
from bat_dist.results.claims import Finding
from bat_dist.settings.study import WITHOUT_ATYPICAL
from bat_dist.storage.files import Folder
from bat_dist.studies.annotation import Answered, answers_by_sample, read_answers
from bat_dist.studies.inputs import StudyInputs
from bat_dist.studies.people import HumanLabels, label_counts, read_human_labels
from bat_dist.studies.poisoning import HIGH, LOW, NEITHER, PoisoningSamples, nearest_typical, poisoning_samples

SAMPLES, GALLERY = "poisoning.csv", "gallery.npz"
SHOWN = {HIGH: 12, LOW: 4}  # pairs of the gallery


def analyse(inputs: StudyInputs, folder: Folder) -> list[Finding]:
    """Scores of the atypical samples, the gallery's images, the annotation page, and what people have said.

    Raises UserError for outputs of other samples, labels of other data and answers to other questions.
    """
    settings, train = inputs.settings, inputs.dataset.train
    samples = _ranked(inputs)
    labels = read_human_labels(settings.labels, inputs.dataset) if settings.labels else None
    files = read_answers(settings.answers, inputs.dataset.fingerprint)
    answered = answers_by_sample(files, samples)
    folder.write(SAMPLES, _table(inputs, samples, labels, answered).to_csv(index=False).encode())
    folder.write_npz(GALLERY, **_gallery(inputs, samples))
    folder.write(PAGE, annotation_page(inputs.dataset, samples).encode())
    findings = []
    for name in (LABEL_TABLE, ANSWER_TABLE, AGREEMENT):  # of an earlier call
        folder.remove(name)
    if labels is not None:
        findings += analyse_labels(folder, samples, labels, train.labels, inputs.sets.mem)
    if answered:
        findings += analyse_answers(folder, samples, answered)
    return findings


def draw(folder: Folder, about: Mapping[str, Any]) -> dict[str, Figure]:
    """Fig. 3, and what people call the samples, if that is known."""
    arrays = folder.read_npz(GALLERY)
    groups = {}
    for of, words in ((HIGH, "Highest"), (LOW, "Lowest")):
        chosen = np.flatnonzero(arrays["of"] == of).tolist()
        heading = f"{words} poisoning scores, {len(chosen)} of {int(arrays[f'num_{of}'])}; {about['note']}"
        groups[heading] = [_look_alike(arrays, at) for at in chosen]
    figures = {"poisoning_gallery": look_alike_gallery(groups, note="left: atypical, right: the nearest typical")}
    if folder.exists(LABEL_TABLE):
        figures["poisoning_labels"] = draw_labels(folder, about["note"])
    return figures


def lines(folder: Folder) -> list[str]:
    """The sets and their scores, the table of labels, and the paper's table of answers with Cohen's kappa."""
    table = pd.read_csv(io.BytesIO(folder.read(SAMPLES)))
    return [*_set_lines(table), *label_lines(folder), *answer_lines(folder), f"to ask people: open {folder}/{PAGE}"]


def _set_lines(table: pd.DataFrame) -> Iterator[str]:
    is_split = len(table) - np.count_nonzero(table["set"] != NEITHER) < 2
    for of, half in ((HIGH, "upper"), (LOW, "lower")):
        q = table.loc[table["set"] == of, "q"]
        which = f"the {half} half, {len(q)}" if is_split else str(len(q))
        yield f"{of} poisoning scores: {which} of {len(table)} atypical samples, {q.min():.3f} to {q.max():.3f}"


def _ranked(inputs: StudyInputs) -> PoisoningSamples:
    outputs, atypical = inputs.outputs("pgd_at", WITHOUT_ATYPICAL), np.flatnonzero(inputs.sets["train_atypical"])
    if any(not np.array_equal(one["train_index"], atypical) for one in outputs):
        raise UserError(
            f"{inputs.folder}: the trainings without atypical samples left others out than are atypical now: the same "
            "command with --fresh trains them again"
        )
    try:
        return poisoning_samples(outputs, inputs.dataset.train.labels, inputs.settings.most)
    except ValueError as error:
        raise UserError(str(error)) from None


def _table(
    inputs: StudyInputs, samples: PoisoningSamples, labels: HumanLabels | None, answered: Answered
) -> pd.DataFrame:
    """A row for each atypical sample, the highest score first."""
    names, index = np.array(inputs.dataset.class_names), samples.index
    columns: dict[str, Any] = {
        **{"index": index, "id": inputs.dataset.train.ids[index], "label": samples.y1, "other_label": samples.y2},
        **{"y1": names[samples.y1], "y2": names[samples.y2], "q": samples.q},
        **{f"q_seed{seed}": samples.scores[:, at] for at, seed in enumerate(inputs.settings.seeds)},
        **{"mem": inputs.sets.mem[index], "set": samples.of},
    }
    if labels is not None:
        columns |= label_counts(labels[index], samples)
    columns |= {f"answer_{name}": given for name, given in answered.items()}
    return pd.DataFrame(columns)


def _gallery(inputs: StudyInputs, samples: PoisoningSamples) -> dict[str, np.ndarray]:
    """Pairs to draw: the highest and the lowest scores whose class y2 has a typical sample."""
    train, names = inputs.dataset.train, np.array(inputs.dataset.class_names)
    typical, shown, beside = inputs.sets["train_typical"], [], []
    for of, order in ((HIGH, range(len(samples.index))), (LOW, range(len(samples.index))[::-1])):
        for at in [at for at in order if samples.of[at] == of]:
            candidates = np.flatnonzero(typical & (train.labels == samples.y2[at]))
            if len(candidates) and np.count_nonzero(samples.of[shown] == of) < SHOWN[of]:
                shown.append(at)
                near = nearest_typical(train.images[samples.index[at]], train.images[candidates])
                beside.append(candidates[near])
    places, others = np.array(shown, int), np.array(beside, int)
    pairs = np.stack([samples.index[places], others], axis=1)
    return {
        **{"images": train.images[pairs], "ids": train.ids[pairs], "classes": names[train.labels[pairs]]},
        **{"q": samples.q[places], "of": samples.of[places]},
        **{f"num_{of}": np.array(samples.members(of).sum()) for of in (HIGH, LOW)},
    }


def _look_alike(arrays: Mapping[str, np.ndarray], at: int) -> LookAlike:
    images, ids, classes = arrays["images"][at], arrays["ids"][at], arrays["classes"][at]
    return LookAlike(
        (images[0], images[1]), (str(ids[0]), str(ids[1])), (str(classes[0]), str(classes[1])), float(arrays["q"][at])
    )
