"""Settings of `bat-dist export`.  Imports no torch, so that `--help` answers at once."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from bat_dist.config import Group, Help
from bat_dist.storage.places import Place


def one_line(text: str) -> str:
    """The text without line breaks, control characters and what turns the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _title(text: str) -> str:
    if not one_line(text):
        raise ValueError(f"must have a letter to show, got {text!r}")
    return one_line(text)


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\W_][\w.-]*(:\d+)?([/?#][\w./?#\[\]@!$&'()*+,;=:%~-]*)?", text, flags=re.ASCII):
        raise ValueError(f"must be a plain http:// or https:// address, got {text!r}")
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", text, flags=re.ASCII):
        raise ValueError(f"must be USER/NAME of the Hub, got {text!r}")
    return text


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise ValueError(f"must be a name that the Hub knows, such as apache-2.0, mit or other, got {text!r}")
    return text


_CARD = Group("the card")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """`bat-dist export`."""

    out: Annotated[Place, Help("folder to write, or a URI; an earlier export in it is replaced", "DIR")]
    checkpoint: Annotated[
        str | None, Help("a network: a folder of bat-dist train, or one .safetensors file of it", "DIR_OR_FILE")
    ] = None
    scores: Annotated[
        str | None, Help("memorization scores, instead of a network: a folder of bat-dist memorize", "DIR")
    ] = None
    which: Annotated[Literal["best", "last"], Help("which network of a folder")] = "best"
    model: Annotated[
        str | None, Help("the network, if it is your own and not found where it was imported from", "FILE.py:NAME")
    ] = None
    onnx: Annotated[bool, Help("write model.onnx too (needs the extra onnx)")] = False
    push: Annotated[
        str | None,
        AfterValidator(_repository),
        Help(
            "put the folder on the Hugging Face Hub too, into this repository; one that is new is private", "USER/NAME"
        ),
    ] = None

    name: Annotated[
        str | None, AfterValidator(_title), Help("of the network or the scores; default: arch-dataset-method"), _CARD
    ] = None
    authors: Annotated[str | None, AfterValidator(_title), Help("in one text, separated by commas"), _CARD] = None
    link: Annotated[str | None, AfterValidator(_url), Help("paper or page", "URL"), _CARD] = None
    license: Annotated[str | None, AfterValidator(_license), Help("as the Hub calls it: apache-2.0, ..."), _CARD] = None

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.scores is None):
            raise ValueError("give one of the two: checkpoint, of a network, or scores, a folder of bat-dist memorize")
        if self.scores is not None and (self.onnx or self.model or self.which != "best"):
            raise ValueError("which, model and onnx are of networks: leave them out with scores")
