"""The studies by name, with a line about each."""

from typing import Literal

STUDIES = {
    "atypical": "accuracy on atypical samples of both splits along the epochs (Sec. 3.1, Fig. 1, 8-13)",
    "typical": "what atypical training samples do to typical test samples (Sec. 3.2, Fig. 2, 14-19)",
    "separation": "how far apart the classes are in the penultimate layer (App. B.2 iii)",
    "poisoning": "atypical samples that look like another class, and what people say of them (Fig. 3, App. B.3)",
    "alignment": "how well cheaper scores replace memorization, and BAT with each (App. A.1)",
    "attribution": "how well each cheaper score and attribution agrees with the trials, and what it costs",
    "gallery": "the most and least memorized samples, and pairs of large influence (Fig. 5, 7)",
    "histogram": "how memorization is distributed (Fig. 6)",
    "theory": "Theorems 1 and 2 on a grid (Sec. 3.2, App. C)",
    "efficiency": "how many trials each estimator of memorization needs, and when a run may stop, from its trials",
}
StudyName = Literal[
    "atypical",
    "typical",
    "separation",
    "poisoning",
    "alignment",
    "attribution",
    "gallery",
    "histogram",
    "theory",
    "efficiency",
]
