"""A trained network as a folder for others: ready for the Hugging Face Hub, described as RobustBench does."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import bat_dist
from bat_dist.artifacts.checkpoints import EXPORTED, SUFFIX, ModelSpec, load_checkpoint, place, save_model
from bat_dist.artifacts.onnx_file import OnnxFile
from bat_dist.errors import UserError
from bat_dist.models.build import Classifier
from bat_dist.models.names import parse_arch
from bat_dist.parts import library_of
from bat_dist.storage.files import Folder
from bat_dist.storage.provenance import without_passwords
from bat_dist.storage.recorded import DATA, data_of_checkpoint

CONFIG, CARD, MODEL_INFO, ONNX = "config.json", "README.md", "model_info.json", "model.onnx"
LIBRARY = "bat_dist"
_SHOWN_OF_RUN = ("command", "bat_dist", "git_revision", "python", "versions", "cpu", "cpus", "gpu", "gpus", "system")
_SHOWN_OF_RUN += ("computed_on", "finished")


class AccuracyRow(NamedTuple):
    """One measured accuracy, a fraction like its standard error; `attack` is clean, pgd20, autoattack, ..."""

    attack: str
    accuracy: float
    standard_error: float
    n: int
    split: str = "test"


@dataclass(frozen=True)
class Trained:
    """A trained network and what is known about it."""

    model: Classifier
    spec: ModelSpec
    facts: Mapping[str, Any]  # what training wrote into the checkpoint, see `load_checkpoint`
    is_best: bool  # chosen among the epochs by its validation accuracy
    origin: Mapping[str, Any]  # from run.json: command, versions, hardware; empty if there is none
    data: Mapping[str, Any]  # which part of which dataset, as settings; without its place on this machine
    evaluated: tuple[AccuracyRow, ...] = ()  # on the test set, by `bat-dist evaluate`

    @property
    def default_name(self) -> str:
        """What the network is called unless the user says otherwise, such as resnet18-cifar10-bat."""
        parts = (self.spec.arch, self.facts.get("dataset"), self.facts.get("method"))
        return "-".join(str(part) for part in parts if part)

    @property
    def validated(self) -> tuple[AccuracyRow, ...]:
        """What training measured on the validation split; the standard errors are binomial."""
        n, steps = self.facts.get("num_val"), self.facts.get("val_steps", self.facts.get("num_steps", ""))
        measured = {"clean": self.facts.get("val_clean"), f"pgd{steps}": self.facts.get("val_pgd")}
        return tuple(
            AccuracyRow(attack, p, math.sqrt(p * (1 - p) / n), n, "validation")
            for attack, p in measured.items()
            if n and p is not None and math.isfinite(p)
        )


def read_trained(
    location: str, which: str = "best", *, evaluated: Sequence[AccuracyRow] = (), model: str | None = None
) -> Trained:
    """Read a checkpoint (see `load_model`) and the run.json beside it.  Raises UserError if either is damaged."""
    checkpoint = load_checkpoint(location, which, model=model)
    if not library_of(checkpoint.spec.reference):  # a place on this machine says nothing to others
        checkpoint = checkpoint._replace(spec=replace(checkpoint.spec, reference=""))
    folder, name = place(location, which)
    run = folder.read_json("run.json") if folder.exists("run.json") else {}
    run = run.get("provenance", run) if isinstance(run, dict) else {}
    origin = {key: run[key] for key in _SHOWN_OF_RUN if run.get(key) is not None}
    if "command" in origin:
        origin["command"] = without_passwords(str(origin["command"]))
    data = {key: one.value for key, one in data_of_checkpoint(location).items() if key in DATA and key != "data_dir"}
    if ".py:" in str(data.get("dataset")):
        data["dataset"] = data["dataset"].rpartition("/")[2]
    return Trained(*checkpoint, name == "best" + SUFFIX, origin, data, tuple(evaluated))


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The entries of RobustBench's model_info, in its order; None for what is not known.

    The accuracies, text in percent, were measured on the test set: those on the validation split are in the footnote.
    """

    link: str | None
    name: str
    authors: str | None
    additional_data: bool = False
    number_forward_passes: int = 1
    dataset: str | None
    venue: str | None = None
    architecture: str
    eps: str | None
    clean_acc: str | None
    reported: str | None
    autoattack_acc: str | None
    footnote: str | None


def model_info(trained: Trained, *, name: str, authors: str | None, link: str | None) -> ModelInfo:
    """The network as RobustBench describes one."""
    percent = {row.attack: f"{100 * row.accuracy:.2f}" for row in trained.evaluated}
    epsilon, validated = trained.facts.get("epsilon"), trained.validated
    measured = ", ".join(f"{row.attack} {100 * row.accuracy:.2f}%" for row in validated)
    footnote = f"On {validated[0].n} validation images held out of the training set: {measured}." if validated else None
    return ModelInfo(
        link=link,
        name=name,
        authors=authors,
        dataset=trained.facts.get("dataset"),
        architecture=architecture(trained.spec.arch),
        eps=None if epsilon is None else pixels(epsilon),
        clean_acc=percent.get("clean"),
        reported=percent.get("autoattack"),
        autoattack_acc=percent.get("autoattack"),
        footnote=footnote,
    )


def check_free(folder: Folder, source: Folder, mark: str = CONFIG) -> None:
    """Raise UserError unless an export may be written: the folder is new, empty, or holds an earlier export.

    mark: the file by which an earlier export of the same kind is known.
    """
    if folder.fs.isfile(folder.root):
        raise UserError(f"{folder} is a file, and a folder is wanted: name another --out")
    if (folder.root, folder.fs) == (source.root, source.fs):
        raise UserError(f"{folder} is the folder itself that is exported: name another --out")
    names = folder.fs.ls(folder.root, detail=False) if folder.fs.isdir(folder.root) else []
    config = folder.read_json(mark) if names and folder.exists(mark) else None
    if names and not (isinstance(config, dict) and config.get("library_name") == LIBRARY):
        raise UserError(f"{folder} is not empty, and holds no earlier export: name another --out")


def write_export(folder: Folder, trained: Trained, *, card: str, info: ModelInfo, onnx: OnnxFile | None) -> None:
    """Write the folder; the weights come last, so that a folder that loads is complete and of one network.

    `config.json` says how to feed the network, and how it came about.
    """
    folder.create()
    for name in (EXPORTED, ONNX):  # of an earlier export
        folder.remove(name)
    spec = asdict(trained.spec)
    names = spec.pop("class_names")
    spec = {name: value for name, value in spec.items() if value != ""}
    config = {
        "library_name": LIBRARY,
        "bat_dist": bat_dist.__version__,
        **spec,
        "num_classes": len(names),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "input": "float32 [batch, 3, height, width], RGB in [0, 1]; normalization is inside the network",
        "output": "logits [batch, num_classes]",
        "training": dict(trained.facts),
        "data": dict(trained.data),
        "origin": dict(trained.origin),
    }
    folder.write_json(CONFIG, config | ({"onnx_max_difference": onnx.max_difference} if onnx else {}))
    folder.write(CARD, card.encode())
    folder.write(MODEL_INFO, (json.dumps(asdict(info), indent=2) + "\n").encode())
    if onnx:
        folder.write(ONNX, onnx.data)
    save_model(folder, EXPORTED.removesuffix(SUFFIX), trained.model.state_dict(), trained.spec, trained.facts)


def architecture(arch: str) -> str:
    """The name as papers write it: wrn28-10 is WideResNet-28-10."""
    if " " in arch:  # one of the user's own
        return arch
    family, depth, width = parse_arch(arch)
    names = {"resnet": "ResNet", "cifar_resnet": "ResNet", "preact_resnet": "PreActResNet"}
    return f"WideResNet-{depth}-{width}" if family == "wide_resnet" else f"{names[family]}-{depth}" if depth else arch


def pixels(value: float) -> str:
    """A distance between pixels in [0, 1] as papers write it: 8/255."""
    steps = 255 * value
    return f"{round(steps)}/255" if abs(steps - round(steps)) < 1e-6 else f"{value:g}"
