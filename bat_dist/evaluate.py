"""How robust is a network?  Attacks on every test image, on Ray, with a flag for each image kept.

    bat-dist evaluate --checkpoint runs/bat --dataset cifar10 --attacks clean pgd20 autoattack --out results/bat

The same command resumes: finished blocks of images are kept.
"""

from collections.abc import Sequence

DESCRIPTION = (
    "Attack a network on the test set, or on another split: clean, FGSM, PGD, CW (l_inf margin) and AutoAttack. "
    "Accuracies with standard errors, and for every image and attack whether it stayed right."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0 (done), 2 (bad input) or 1 (incomplete: the same command goes on)."""
    from bat_dist.program import run_command

    return run_command(_evaluate, argv)


def _evaluate(argv: Sequence[str]) -> int:
    from bat_dist.config import parse, status_asked, to_dict
    from bat_dist.settings.evaluate import EvaluateSettings
    from bat_dist.settings.known import of_checkpoint, resumed
    from bat_dist.workers.private_ray import prepare_environment

    about = {"prog": "bat-dist evaluate", "description": DESCRIPTION}
    if asked := status_asked(EvaluateSettings, argv, **about):
        from bat_dist.results.status import describe_evaluation
        from bat_dist.storage.files import Folder

        print(describe_evaluation(Folder(asked["out"])))
        return 0
    settings, _ = parse(EvaluateSettings, argv, **about, known=resumed("evaluate", EvaluateSettings, of_checkpoint))
    prepare_environment(settings.ray_address)
    # Everything that loads torch or ray comes after --help and the settings' own checks.
    from bat_dist.data.datasets import load_dataset
    from bat_dist.jobs.attacked_images import attacked
    from bat_dist.jobs.attacked_network import load_subject
    from bat_dist.jobs.evaluate import evaluate, with_earlier
    from bat_dist.reporting.evaluation import report_evaluation
    from bat_dist.storage.files import Folder
    from bat_dist.storage.lease import only_driver

    folder = Folder(settings.out)
    settings = with_earlier(folder, settings)
    dataset = load_dataset(settings.dataset, **settings.data)
    subject = load_subject(dataset, settings)
    dataset, subsets = attacked(dataset, settings, subject.facts)
    with only_driver(folder):
        evaluation = evaluate(folder, dataset, settings, subject)
        of_network = {"facts": subject.facts, "digest": subject.digest}
        asked = {**to_dict(settings), "fresh": False}  # which it was for once
        print(report_evaluation(folder, dataset, asked, evaluation, subsets=subsets, **of_network))
    return 0


if __name__ == "__main__":
    # Not this file's own main: a script that is copied alone to a cluster's head node must not pickle its own classes.
    from bat_dist.evaluate import main as installed_main
    from bat_dist.program import exit_with

    exit_with(installed_main())
