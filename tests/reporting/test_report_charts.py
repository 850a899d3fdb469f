"""The report's charts: what their bars count, and in which colour."""

import base64
import json
import re
from typing import Any

import numpy as np

from bat_dist.figures.style import BLUE, GREY, RED
from bat_dist.reporting.report_charts import histogram_chart


def bars(html: str) -> list[tuple[str, int, str]]:
    """Words, count and colour of each bar."""
    found = re.search(r"application/json\">(.*)</script>", html)
    assert found
    traces: list[dict[str, Any]] = json.loads(found[1])["data"]
    return [
        (text, int(count), trace["marker"]["color"])
        for trace in traces
        for text, count in zip(numbers(trace["text"]), numbers(trace["y"]), strict=True)
    ]


def numbers(values: Any) -> list[Any]:
    """As plotly writes arrays: a list, or their bytes."""
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist() if "bdata" in values else values


def test_each_sample_of_the_histogram_has_the_colour_of_its_group() -> None:
    mem = np.array([-0.03] * 20 + [0.0] * 900 + [0.019] * 50 + [0.02] * 7 + [0.15] * 3 + [0.16] * 4 + [1.0] * 30)
    assert bars(histogram_chart(mem, 0)) == [
        ("-0.05 to 0", 20, BLUE),
        ("0 to 0.02", 950, BLUE),
        ("0.02 to 0.05", 7, GREY),
        ("0.15 to 0.2", 3, GREY),  # 0.15 itself is not above it
        ("0.15 to 0.2", 4, RED),
        ("0.95 to 1", 30, RED),
    ]
