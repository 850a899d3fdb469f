"""A network of the user's own, found again for the weights of a checkpoint.

A checkpoint holds no code, and none that comes with one is run: it names the file that its network was imported from,
by its whole path, so that a folder of a stranger's can name no file in it. That file is imported if it is still there
and was not changed; all else the user must name.
"""

import logging
from pathlib import Path
from typing import Any

from bat_dist.errors import UserError
from bat_dist.models.own import OwnNetwork, named_network, own_network
from bat_dist.parts import file_digest, is_file_of_user, library_of

log = logging.getLogger(__name__)


def network_again(arch: str, reference: str, given: Any, place: str) -> OwnNetwork:
    """The network that a checkpoint is of.

    arch: what the checkpoint calls it; reference: where it was imported from. given: by the user: a reference, a class,
    a function, or None; a warning says so if it is another. place: the checkpoint, for messages.
    Raises UserError if it is not at hand, or was changed since.
    """
    if given is None and not _may_be_imported(reference):
        was = f", imported from {reference}" if reference else ""
        raise UserError(
            f"{place} holds the weights of your own network {arch}{was}, and no code: name the network with --model "
            "FILE.py:NAME or package.module:NAME (in Python: load_model(..., model=Net))"
        )
    if given is None and not library_of(reference):  # before it is run
        digest = file_digest(Path(reference.rpartition(":")[0]))
        if digest != arch.rpartition(" ")[2]:
            raise UserError(_changed(place, arch, reference))
    if isinstance(given, OwnNetwork):
        found = given
    elif given is None or isinstance(given, str):
        found = named_network(given or reference, what="model")
    else:
        found = own_network(given)
    if str(found) != arch and given is None:
        raise UserError(_changed(place, arch, str(found)))
    if str(found) != arch:
        log.warning("%s was trained with %s; its weights are taken for %s", place, arch, found)
    return found


def _changed(place: str, arch: str, now: str) -> str:
    return (
        f"{place} was trained with {arch}, and {now} is another now: its source, or the library's version, was changed "
        "since. Go back to that, or take it as it is now with --model FILE.py:NAME"
    )


def _may_be_imported(reference: str) -> bool:
    """Whether a reference in a checkpoint may be imported on its word: a library's network, or a file of the user's."""
    where = reference.rpartition(":")[0]
    return bool(library_of(reference)) or (where.endswith(".py") and is_file_of_user(Path(where)))
