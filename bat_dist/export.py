"""A trained network, or scores, for others: a folder for the Hugging Face Hub, with a card.

bat-dist export --checkpoint results/bat --out exported/bat
bat-dist export --checkpoint results/bat --out exported/bat --onnx --license apache-2.0
bat-dist export --scores results/cifar10 --out exported/scores

The card of a network speaks of validation accuracies, and says so; nothing is uploaded without --push.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bat_dist.program import command, run_installed

if TYPE_CHECKING:
    from bat_dist.settings.export import ExportSettings

DESCRIPTION = (
    "Write a trained network as a folder that others can load: weights (safetensors), model card, RobustBench's "
    "model_info.json and, if asked for, ONNX; or memorization scores: tables (parquet), arrays and a data card. "
    "Nothing is uploaded without --push."
)
EXAMPLES = """
bat-dist export --checkpoint runs/bat --out exported/bat --onnx --license apache-2.0
bat-dist export --checkpoint runs/bat --out exported/bat --push user/bat-cifar10
bat-dist export --scores results/cifar10 --out exported/scores --license cc-by-4.0
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (anything else)."""
    from bat_dist.config import parse
    from bat_dist.settings.export import ExportSettings

    settings, _ = parse(ExportSettings, argv, prog="bat-dist export", description=DESCRIPTION, examples=EXAMPLES)
    # Everything that loads torch comes after --help and the settings' own checks.
    if settings.scores is not None:
        return export_scores(settings, settings.scores)
    return export_network(settings, settings.checkpoint or "")


def export_network(settings: "ExportSettings", checkpoint: str) -> int:
    """Write a network's folder, and put it on the Hub if asked to; returns the exit code."""
    from bat_dist.artifacts import export, hub, onnx_file
    from bat_dist.artifacts.checkpoints import place
    from bat_dist.reporting.model_card import model_card
    from bat_dist.storage.files import Folder

    folder = Folder(settings.out)
    export.check_free(folder, place(checkpoint, settings.which)[0])
    if settings.push:
        hub.check_can_push(folder)
    trained = export.read_trained(checkpoint, settings.which, model=settings.model)
    onnx = onnx_file.to_onnx(trained.model, trained.spec.image_size) if settings.onnx else None
    name = settings.name or trained.default_name
    about = {"name": name, "authors": settings.authors, "link": settings.link}
    card = model_card(trained, **about, license=settings.license, onnx=onnx)
    export.write_export(folder, trained, card=card, info=export.model_info(trained, **about), onnx=onnx)
    print(f"{name}: exported to {folder}")
    if onnx:
        print(f"{export.ONNX}: {onnx.verdict}")
    if settings.push:
        print(f"on the Hub: {hub.push(folder, settings.push)} (load_model('hf://{settings.push}') reads it)")
    return 0


def export_scores(settings: "ExportSettings", scores: str) -> int:
    """Write the folder of scores, and put it on the Hub if asked to; returns the exit code."""
    from bat_dist.artifacts import hub
    from bat_dist.artifacts.export import check_free
    from bat_dist.artifacts.score_export import PROVENANCE, SCORE_FILES, read_found_scores, write_scores
    from bat_dist.reporting.score_card import provenance_of_scores, score_card
    from bat_dist.storage.files import Folder

    folder = Folder(settings.out)
    check_free(folder, Folder(scores), PROVENANCE)
    if settings.push:
        hub.check_can_push(folder)
    found = read_found_scores(scores)
    provenance = provenance_of_scores(found)
    about = {"name": settings.name, "authors": settings.authors, "link": settings.link, "license": settings.license}
    write_scores(folder, found, card=score_card(found, provenance, **about), provenance=provenance)
    print(f"scores of {found.num_train:,} training samples: exported to {folder}")
    if settings.push:
        address = hub.push(folder, settings.push, SCORE_FILES, "dataset")
        print(f"on the Hub: {address} (load_scores('hf://datasets/{settings.push}') reads it)")
    return 0


if __name__ == "__main__":
    run_installed("export")
