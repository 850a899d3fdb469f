"""How robust is a network?  Attacks on every test image, on Ray, with a flag for each image kept.

    bat-dist evaluate --checkpoint runs/bat --dataset cifar10 --attacks clean pgd20 autoattack --out results/bat

The same command resumes: finished blocks of images are kept.  In Python: `from bat_dist import evaluate`, which is the
function, not this module.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Attack a network on the test set, or on another split: clean, FGSM, PGD, CW (l_inf margin) and AutoAttack. "
    "Accuracies with intervals, and for every image and attack whether it stayed right."
)
EXAMPLES = """
bat-dist evaluate --checkpoint runs/bat --attacks clean pgd20 --out results/bat
bat-dist evaluate --checkpoint runs/bat --attacks autoattack --num_workers 2 --out results/bat
bat-dist evaluate --model nets.py:make --checkpoint weights.pt --dataset cifar10 --data_dir data --out results/mine
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.evaluate import EvaluateSettings
    from bat_dist.settings.known import of_checkpoint
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("evaluate", EvaluateSettings, argv, DESCRIPTION, EXAMPLES, data=of_checkpoint)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.api.evaluate import carry_out
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.attacked_network import load_subject
    from bat_dist.jobs.evaluate_here import with_earlier
    from bat_dist.jobs.own_parts import import_parts
    from bat_dist.reporting.evaluation import in_words
    from bat_dist.results.evaluation_file import FLAGS
    from bat_dist.storage.files import Folder

    folder = Folder(settings.out)
    settings = with_earlier(folder, settings)
    import_parts(settings)
    dataset = load_dataset(settings.dataset, **settings.data)
    _, document = carry_out(settings, dataset, load_subject(dataset, settings))
    print("\n".join([*in_words(document), f"by image: {folder}/{FLAGS}"]))
    return 0


if __name__ == "__main__":
    run_installed("evaluate")
