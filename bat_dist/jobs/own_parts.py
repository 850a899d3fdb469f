"""The user's own networks and methods that settings name: imported once, by the driver, they travel from there on."""

from typing import TYPE_CHECKING, Any

from bat_dist.parts import is_reference, library_of, load_part

if TYPE_CHECKING:
    from bat_dist.methods.own import OwnMethod
    from bat_dist.models.own import OwnNetwork  # imports torch, which pictures of given scores can do without


def import_parts(settings: Any) -> None:
    """Import the network, the method and the model that the settings name, if they are the user's own.

    Programs do so before they read the data, which may take long, so that a misspelt name is said at once.  Raises
    UserError.
    """
    network_of(getattr(settings, "arch", None))
    method_of(getattr(settings, "method", None))
    model = getattr(settings, "model", None)
    if isinstance(model, str) and is_reference(model) and not library_of(model):
        load_part(model, what="--model")


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
