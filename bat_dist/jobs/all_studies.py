"""What `bat-dist study` does, from settings to findings.  Loads torch and ray only for studies that need them."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

from bat_dist.jobs.study_folder import begin_studies, kept_if_refused
from bat_dist.reporting.studies.report import report_study, report_without_data
from bat_dist.settings.study import StudySettings
from bat_dist.storage.files import Folder


class Studies:
    """Studies that are carried out in one folder, which the caller holds (`storage.lease.only_driver`).

    failed: trainings that failed, with the reason, once `lines` has come to its end.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self._folder = Folder(settings.out)
        self.failed: Mapping[str, str] = {}

    def lines(self) -> Iterator[str]:
        """Do what the folder lacks, and write what follows from it; yields the lines to print.

        Raises UserError for scores, labels or settings that do not fit the data, before anything is trained.
        """
        with nullcontext() if self._settings.fresh else kept_if_refused(self._folder):
            yield from self._lines()

    def _lines(self) -> Iterator[str]:
        settings, folder = self._settings, self._folder
        if not settings.needs_data:
            settings = begin_studies(folder, settings)
            for name in settings.study:
                yield from report_without_data(name, folder, settings)
            return
        from bat_dist.data.datasets import load_dataset
        from bat_dist.jobs.own_parts import network_of
        from bat_dist.studies.annotation import read_answers
        from bat_dist.studies.inputs import StudyInputs, read_sets
        from bat_dist.studies.people import read_human_labels

        settings = dataclasses.replace(settings, arch=network_of(settings.arch))
        dataset = load_dataset(settings.data_name, **settings.data)
        if settings.labels:  # what people said is read before hours of training, and again after them
            read_human_labels(settings.labels, dataset)
        read_answers(settings.answers, dataset.fingerprint)
        if settings.needs_workers:
            from bat_dist.jobs.study import carry_out_studies

            self.failed = carry_out_studies(folder, dataset, settings)
        else:
            settings = begin_studies(folder, settings)
        inputs = StudyInputs(folder, dataset, settings, read_sets(dataset, settings))
        for name in settings.study:
            yield from report_study(name, inputs)
