"""A trained network for others: a folder for the Hugging Face Hub, with a model card and RobustBench's model_info.

bat-dist export --checkpoint results/bat --out exported/bat
bat-dist export --checkpoint results/bat --out exported/bat --onnx --license apache-2.0

The card speaks of validation accuracies, and says so; nothing is uploaded without --push.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Write a trained network as a folder that others can load: weights (safetensors), model card, RobustBench's "
    "model_info.json and, if asked for, ONNX. Nothing is uploaded without --push."
)
EXAMPLES = """
bat-dist export --checkpoint runs/bat --out exported/bat
bat-dist export --checkpoint runs/bat --out exported/bat --onnx --license apache-2.0
bat-dist export --checkpoint runs/bat --out exported/bat --push user/bat-cifar10
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (anything else)."""
    from bat_dist.config import parse
    from bat_dist.settings.export import ExportSettings

    settings, _ = parse(ExportSettings, argv, prog="bat-dist export", description=DESCRIPTION, examples=EXAMPLES)
    # Everything that loads torch comes after --help and the settings' own checks.
    from bat_dist.artifacts import export, hub, onnx_file
    from bat_dist.artifacts.checkpoints import place
    from bat_dist.reporting.model_card import model_card
    from bat_dist.storage.files import Folder

    folder = Folder(settings.out)
    export.check_free(folder, place(settings.checkpoint, settings.which)[0])
    if settings.push:
        hub.check_can_push(folder)
    trained = export.read_trained(settings.checkpoint, settings.which, model=settings.model)
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


if __name__ == "__main__":
    run_installed("export")
