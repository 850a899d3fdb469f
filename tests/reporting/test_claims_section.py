"""The paper's claims on the report's page, from `findings.json` of studies."""

from html import unescape
from pathlib import Path

import numpy as np
from PIL import Image

from bat_dist.reporting.report import page
from bat_dist.results.claim import COST
from bat_dist.results.claims import CLAIMS, Finding
from bat_dist.results.compare import compare
from bat_dist.results.find import find_results
from bat_dist.results.findings_file import FoundStudy, read_findings, write_findings
from bat_dist.storage.files import Folder

FOUND = (
    Finding("at_clean_drops", 0.031, 0.012, 0.05, "3 seeds, 100 samples, paired"),
    Finding("erm_does_not_drop", -0.002, float("nan"), float("nan"), "1 seed, 100 samples, no interval"),
)


def written(place: Path) -> FoundStudy:
    study = FoundStudy(Folder(str(place)), "typical", {"note": "tinynet on digits, 3 seeds"}, FOUND)
    study.folder.create()
    write_findings(study)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(place / "typical.png")
    return study


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    study = written(tmp_path / "studies/typical")
    again = read_findings(study.folder)
    assert (again.study, again.about) == (study.study, study.about)
    assert str(again.findings) == str(study.findings)  # nan is not equal to itself


def test_every_claim_stands_on_the_page_with_what_a_study_says_of_it(tmp_path: Path) -> None:
    written(tmp_path / "studies/typical")
    found = find_results([str(tmp_path)])
    assert not found.is_empty
    text = unescape(page(Folder(tmp_path), found, compare(found)))
    section = text[text.index('id="rows-claims"') : text.index("</table>", text.index('id="rows-claims"'))]
    rows = [row for row in section.split("<tr>") if '<th scope="row">' in row]
    of_paper = {name: claim for name, claim in CLAIMS.items() if claim.place != COST}  # others appear once tested
    assert len(rows) == len(of_paper)
    for name, claim in of_paper.items():
        (row,) = [row for row in rows if claim.statement in row and claim.quantity in row]
        verdicts = {"at_clean_drops": "reproduced", "erm_does_not_drop": "not visible at this scale"}
        assert f">{verdicts.get(name, 'not tested')}<" in row
    assert "0.031 (95%: 0.012 to 0.050)" in section
    assert "tinynet on digits, 3 seeds; 3 seeds, 100 samples, paired" in section
    assert "typical: typical" in text  # its figure
    assert "data:image/webp" in text


def test_without_a_study_there_is_no_section(tmp_path: Path) -> None:
    found = find_results([str(tmp_path)])
    assert "rows-claims" not in page(Folder(tmp_path), found, compare(found))


def test_damaged_findings_are_left_out_by_name(tmp_path: Path) -> None:
    written(tmp_path / "studies/typical")
    (tmp_path / "studies/typical/findings.json").write_text("[]")
    (left_out,) = find_results([str(tmp_path)]).left_out
    assert left_out.place.endswith("studies/typical")
    assert "damaged" in left_out.reason


def test_claims_of_another_version_are_left_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "studies/typical").folder
    folder.write("findings.json", folder.read("findings.json").replace(b"at_clean_drops", b"at_clean_climbs"))
    assert [one.claim for one in read_findings(folder).findings] == ["erm_does_not_drop"]


def test_a_study_of_a_newer_version_is_left_out_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "studies/typical").folder
    folder.write("findings.json", folder.read("findings.json").replace(b'"study": "typical"', b'"study": "newer"'))
    found = find_results([str(tmp_path)])
    assert "does not know, newer" in found.left_out[0].reason
    assert "does not know, newer" in page(Folder(tmp_path), found, compare(found))


def test_a_damaged_figure_is_left_out_by_name(tmp_path: Path) -> None:
    written(tmp_path / "studies/typical")
    (tmp_path / "studies/typical/half.png").write_bytes(b"half")
    whole = (tmp_path / "studies/typical/typical.png").read_bytes()
    (tmp_path / "studies/typical/cut.png").write_bytes(whole[:60])
    found = find_results([str(tmp_path)])
    text = page(Folder(tmp_path), found, compare(found))
    place = tmp_path / "studies/typical"
    assert f"Left out, for they cannot be read: {place}/cut.png, {place}/half.png." in text
    assert "data:image/webp" in text, "the other figure is there"
