"""The user's own networks and methods that settings name: imported once, by the driver, they travel from there on."""

from typing import Any

from bat_dist.methods.own import OwnMethod, named_method
from bat_dist.models.own import OwnNetwork, named_network
from bat_dist.parts import is_reference


def network_of(arch: Any) -> str | OwnNetwork:
    """The network that an architecture names, if it is the user's own or a library's; else its name.

    Raises UserError.
    """
    return named_network(arch) if isinstance(arch, str) and is_reference(arch) else arch


def method_of(method: Any) -> str | OwnMethod:
    """The method that a name stands for, if it is the user's own; else its name.  Raises UserError."""
    return named_method(method) if isinstance(method, str) and is_reference(method) else method
