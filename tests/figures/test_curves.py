from bat_dist.figures.curves import PANELS, training_curves


def rows(*values: float | None, **more: float | None) -> list[dict]:
    return [{"epoch": e, "val_clean": v, "val_pgd": v and v / 2, **more} for e, v in enumerate(values, 1)]


def drawn(histories: dict, **kwargs) -> list:
    return [ax for ax in training_curves(histories, title="t", num_val=500, **kwargs).axes if ax.get_visible()]


def test_each_run_is_a_line_through_its_values():
    clean, pgd = drawn({"pgd_at": rows(0.2, 0.4, 0.5), "bat": rows(0.3, 0.6)})
    assert [line.get_label() for line in clean.lines] == ["pgd_at", "bat"]
    assert clean.lines[0].get_xydata().tolist() == [[1, 0.2], [2, 0.4], [3, 0.5]]
    assert pgd.lines[1].get_ydata().tolist() == [0.15, 0.3]


def test_panels_are_those_that_have_values():
    assert len(drawn({"a": rows(0.2)})) == 2
    assert len(drawn({"a": rows(0.2, val_pgd_typical=0.5, val_pgd_atypical=None)})) == 3
    assert len(drawn({"a": rows(0.2, val_pgd_typical=0.5, val_pgd_atypical=0.1), "b": rows(0.1)})) == len(PANELS)
    assert len(drawn({"a": [{"epoch": 1, "val_clean": 0.1}]})) == 1


def test_nothing_to_draw_is_said():
    fig = training_curves({"a": []}, title="t", num_val=500)
    assert "No epoch" in fig.texts[1].get_text()


def test_the_standard_error_is_that_of_the_split():
    fig = training_curves({"a": rows(0.2)}, title="t", num_val=400)
    assert "2.5 points" in fig.get_supxlabel()
