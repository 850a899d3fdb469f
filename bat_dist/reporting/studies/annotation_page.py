"""`annotate.html`: asks people which of two classes an image is of (App. B.3); one file, works offline."""

from bat_dist.data.datasets import Dataset
from bat_dist.reporting.page import page_template, png_uri
from bat_dist.studies.annotation import questions
from bat_dist.studies.poisoning import PoisoningSamples

PAGE = "annotate.html"


def annotation_page(dataset: Dataset, samples: PoisoningSamples) -> str:
    """The page for the samples of high and low score; it holds neither which set one is of nor which class is given."""
    asked = [
        {**question._asdict(), "image": png_uri(dataset.train.images[question.sample])}
        for question in questions(samples)
    ]
    data = {"fingerprint": dataset.fingerprint, "classes": dataset.class_names, "questions": asked}
    return page_template("annotate.html.j2").render(data=data, title=f"Which class is it? {dataset.name}")
