"""TRAK's features of ensemble members, as they are kept in the ensemble's store."""

import numpy as np

from bat_dist.artifacts.scores import ENSEMBLE
from bat_dist.memorization.attribution import TrakFeatures
from bat_dist.storage.files import Folder
from bat_dist.storage.rows import RowStore

TRAK_FIELDS = ("trak_features", "trak_test_gradients", "trak_out_to_loss", "trak_leverage")


def read_trak(place: Folder) -> TrakFeatures | None:
    """TRAK's features of the complete members of the ensemble in `place`; None if they were trained without."""
    store = RowStore.existing(place / ENSEMBLE)
    if store is None or not set(TRAK_FIELDS) <= store.fields.keys():
        return None
    members = np.flatnonzero(store.status().complete)
    if not len(members):
        return None
    return TrakFeatures(*(store.read(name, members) for name in TRAK_FIELDS[:3]))
