"""The user's own networks and methods that settings name: imported once, by the driver, they travel from there on."""

from typing import TYPE_CHECKING, Any

from bat_dist.parts import is_reference

if TYPE_CHECKING:
    from bat_dist.methods.own import OwnMethod
    from bat_dist.models.own import OwnNetwork  # imports torch, which pictures of given scores can do without


def network_of(arch: Any) -> "str | OwnNetwork":
    """The network that an architecture names, if it is the user's own or a library's; else its name.

    Raises UserError.
    """
    if not isinstance(arch, str) or not is_reference(arch):
        return arch
    from bat_dist.models.own import named_network

    return named_network(arch)


def method_of(method: Any) -> "str | OwnMethod":
    """The method that a name stands for, if it is the user's own; else its name.  Raises UserError."""
    if not isinstance(method, str) or not is_reference(method):
        return method
    from bat_dist.methods.own import named_method

    return named_method(method)
