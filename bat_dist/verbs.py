"""The commands of `bat-dist`, with a line about each."""

VERBS = {
    "memorize": "leave-out trials, then memorization and influence scores",
    "train": "one training run of any method, on one or many workers",
    "tune": "sweep alpha and beta",
    "evaluate": "attack checkpoints: clean, FGSM, PGD, CW, AutoAttack",
    "export": "a trained network for others: Hugging Face Hub, RobustBench, ONNX",
    "reproduce": "a table of the paper: memorize, train, evaluate and report, from one command",
    "report": "tables, figures and one HTML page from all results",
    "study": "a study of the paper: which samples help, which hurt, and which claims hold",
    "collect": "fetch results from the head node of a cluster",
    "plan": "what a job will cost, before it is spent",
    "list": "the names of datasets, architectures, methods and attacks",
    "completion": "a script by which a shell completes commands, options and names",
}
FILES = {"list": "listing"}  # where the file is called otherwise: `bat_dist.list` would hide Python's own
