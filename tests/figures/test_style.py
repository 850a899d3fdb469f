import matplotlib
import pytest
from matplotlib.figure import Figure

from bat_dist.figures import style as reporting_style
from bat_dist.figures.style import fit, message_figure, save, style


def test_save_writes_both_and_leaves_nothing_aside(tmp_path):
    png, svg = save(message_figure("Title", "why"), tmp_path / "new" / "v1.2")
    assert (png.name, svg.name) == ("v1.2.png", "v1.2.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in png.parent.iterdir()) == ["v1.2.png", "v1.2.svg"]


def test_a_failing_save_keeps_the_old_files(tmp_path):
    png, svg = save(message_figure("old", "old"), tmp_path / "figure")
    before = png.read_bytes(), svg.read_bytes()

    class Broken(Figure):
        def savefig(self, path, *, format, **kwargs):
            if format == "svg":
                raise RuntimeError("disk full")
            super().savefig(path, format=format, **kwargs)

    with pytest.raises(RuntimeError, match="disk full"):
        save(Broken(), tmp_path / "figure")
    assert (png.read_bytes(), svg.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_text_is_text_without_a_date_and_without_mathematics(tmp_path):
    _, svg = save(message_figure("costs $5 and $6", "a_b^c"), tmp_path / "figure")
    text = svg.read_text()
    assert ">costs $5 and $6</text>" in text
    assert ">a_b^c</text>" in text
    assert "<dc:date>" not in text
    assert "Matplotlib v" not in text


def test_the_style_ignores_and_keeps_the_users_settings(tmp_path):
    plain = save(message_figure("Title", "why"), tmp_path / "plain")[1].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "text.color": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert save(message_figure("Title", "why"), tmp_path / "again")[1].read_bytes() == plain
        assert dict(matplotlib.rcParams) == before


@style()
def test_fit_cuts_to_the_width():
    assert fit("short", 1, 8) == "short"
    long = "n01443537/images/n01443537_12.JPEG"
    assert fit(long, 1, 8).startswith("n0144")
    assert fit(long, 1, 8).endswith("…")
    assert fit(long, 1, 8, keep_end=True).startswith("…")
    assert fit(long, 1, 8, keep_end=True).endswith("_12.JPEG")
    assert fit("two\nlines\tand \x00", 3, 8) == "two lines and ?"


def test_characters_that_no_font_has_are_shown_by_their_codes(tmp_path, monkeypatch, caplog):
    """Whatever fonts are installed here."""
    known = frozenset(range(0x500))
    monkeypatch.setattr(reporting_style, "_drawable", lambda: known)
    figure = message_figure("猫 / 犬", "класс")
    figure.text(0.5, 0.5, "鳥")
    svg = save(figure, tmp_path / "figure")[1].read_text()
    assert "U+732B / U+72AC" in svg
    assert "U+9CE5" in svg
    assert "класс" in svg
    assert "no installed font has" in caplog.text


def test_a_font_of_another_script_is_used_where_there_is_one(monkeypatch):
    monkeypatch.setattr(reporting_style, "_further_fonts", lambda: ("Noto Sans CJK JP",))
    with style():
        assert matplotlib.rcParams["font.sans-serif"][:2] == ["DejaVu Sans", "Noto Sans CJK JP"]


@pytest.mark.parametrize(("x", "fault"), [(0.12, "overlap"), (0.95, "cut off")])
def test_the_eye_of_these_tests_sees_a_planted_fault(x, fault, visible_texts):
    fig = message_figure("Title", "why")
    fig.text(x, 0.32 if fault == "overlap" else 0.6, "planted words")
    fig.text(0.1, 0.3, "planted before" if fault == "overlap" else "")
    with pytest.raises(AssertionError, match=fault):
        visible_texts(fig)
