"""How robust is a network?  Attacks on every test image, on Ray, with a flag for each image kept.

    bat-dist evaluate --checkpoint runs/bat --dataset cifar10 --attacks clean pgd20 autoattack --out results/bat

The same command resumes: finished blocks of images are kept.
"""

from collections.abc import Sequence

from bat_dist.program import command, run_installed

DESCRIPTION = (
    "Attack a network on the test set, or on another split: clean, FGSM, PGD, CW (l_inf margin) and AutoAttack. "
    "Accuracies with standard errors, and for every image and attack whether it stayed right."
)
EXAMPLES = """
bat-dist evaluate --checkpoint runs/bat --attacks clean pgd20 --out results/bat
bat-dist evaluate --checkpoint runs/bat --attacks autoattack --num_workers 2 --out results/bat
bat-dist evaluate --model nets.py:make --checkpoint weights.pt --dataset cifar10 --data_dir data --out results/mine
"""


@command
def main(argv: Sequence[str]) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.config import to_dict
    from bat_dist.jobs.call import settings_of_call
    from bat_dist.settings.evaluate import EvaluateSettings
    from bat_dist.settings.known import of_checkpoint
    from bat_dist.workers.private_ray import prepare_environment

    settings, _ = settings_of_call("evaluate", EvaluateSettings, argv, DESCRIPTION, EXAMPLES, data=of_checkpoint)
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.attacked_images import attacked
    from bat_dist.jobs.attacked_network import load_subject
    from bat_dist.jobs.evaluate import evaluate, with_earlier
    from bat_dist.reporting.evaluation import in_words
    from bat_dist.results.evaluation_file import FLAGS, write_evaluation
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    folder = Folder(settings.out)
    settings = with_earlier(folder, settings)
    dataset = load_dataset(settings.dataset, **settings.data)
    subject = load_subject(dataset, settings)
    dataset, subsets = attacked(dataset, settings, subject.facts)
    with only_driver(folder):
        evaluation = evaluate(folder, dataset, settings, subject)
        asked = {**to_dict(settings), "fresh": False}  # which it was for once
        document = write_evaluation(
            folder, dataset, asked, evaluation, subsets=subsets, facts=subject.facts, digest=subject.digest
        )
    print("\n".join([*in_words(document), f"by image: {folder}/{FLAGS}"]))
    return 0


if __name__ == "__main__":
    run_installed("evaluate")
