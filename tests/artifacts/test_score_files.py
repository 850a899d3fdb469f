"""Score files are of the data whose fingerprint they carry."""

from pathlib import Path

import numpy as np
import pytest

from bat_dist.artifacts.scores import MEMORIZATION, read_memorization, read_subsets
from bat_dist.errors import UserError
from bat_dist.storage.files import Folder


def test_memorization_of_other_data_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path).write_npz(MEMORIZATION, mem=np.zeros(3), fingerprint=np.array("abc"))
    assert read_memorization(Folder(tmp_path), "abc")["mem"].tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="computed on other data"):
        read_memorization(Folder(tmp_path), "abd")


def test_subsets_of_other_data_are_refused(tmp_path: Path) -> None:
    flags = {"test_typical": np.array([True, False]), "test_atypical": np.array([False, False])}
    Folder(tmp_path).write_npz("typicality.npz", **flags, fingerprint=np.array("abc"))
    place = str(tmp_path / "typicality.npz")
    assert read_subsets(place, "abc", "test")["typical"].tolist() == [True, False]
    with pytest.raises(UserError, match=r"no typicality\.npz of these data"):
        read_subsets(place, "abd", "test")
