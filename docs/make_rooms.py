"""Draws docs/images/rooms.svg: the folders of `bat_dist/`, and which of them imports which.  Part of `make docs`.

Rows are the layers that tests/test_layers.py enforces.  An arrow that follows from others is left out: where `jobs`
imports `workers` and `workers` imports `storage`, `jobs` may import `storage` too without an arrow of its own.  Nor are
there arrows to `errors` and `wording`, which nearly all import.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from tests.test_layers import LAYERS, LEVEL, PACKAGE, imports, room_of

PICTURE = Path(__file__).parent / "images/rooms.svg"
RUN_FILES = "memorize, train, tune, ..."
OF_ALL = {"errors", "wording"}
WIDTH, ROW, BOX, HEIGHT = 760, 64, 132, 30  # pixels: of the picture, between rows, and of a box


def imported_rooms() -> dict[str, set[str]]:
    """For each folder of the package, and for all run files together, the folders that it imports."""
    found: dict[str, set[str]] = {RUN_FILES: set()} | {room: set() for room in sorted(LEVEL)}
    for file in PACKAGE.rglob("*.py"):
        room = room_of(file, PACKAGE)
        targets = {module.split(".")[1] for _, module in imports(file, PACKAGE) if module.startswith("bat_dist.")}
        if room not in ("bat_dist", "cli"):
            found[room if room in LEVEL else RUN_FILES] |= targets & LEVEL.keys() - OF_ALL - {room}
    return found


def without_detours(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The edges that do not follow from others (the transitive reduction of a graph without circles)."""

    def reached(room: str) -> set[str]:
        return edges[room].union(*map(reached, edges[room]))

    return {
        room: {to for to in targets if all(to not in reached(via) for via in targets)}
        for room, targets in edges.items()
    }


def positions(edges: Mapping[str, set[str]]) -> dict[str, tuple[float, float]]:
    """The centre of each box: top rows first; within a row, below what imports it."""
    found: dict[str, tuple[float, float]] = {}
    for number, row in enumerate([[RUN_FILES], *map(sorted, reversed(LAYERS))]):
        wishes = {room: mean([found[by][0] for by in found if room in edges[by]] or [WIDTH / 2]) for room in row}
        for place, room in enumerate(sorted(row, key=lambda room: (wishes[room], room))):
            found[room] = WIDTH * (place + 0.5) / len(row), ROW * (number + 0.5)
    return found


def picture() -> str:
    """The picture as SVG."""
    edges = without_detours(imported_rooms())
    places = positions(edges)
    height = ROW * (len(LAYERS) + 1)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="14" '
        f'viewBox="0 0 {WIDTH} {height}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for room, targets in edges.items():
        x, y = places[room]
        for to_x, to_y in (places[target] for target in sorted(targets)):
            top, end, bend = y + HEIGHT / 2, to_y - HEIGHT / 2, ROW / 2
            path = f"M{x:g} {top:g} C{x:g} {top + bend:g} {to_x:g} {end - bend:g} {to_x:g} {end:g}"
            parts.append(f'<path d="{path}" fill="none" stroke="#999" marker-end="url(#tip)"/>')
    for room, (x, y) in places.items():
        width = BOX if room != RUN_FILES else 2 * BOX
        box = f'x="{x - width / 2:g}" y="{y - HEIGHT / 2:g}" width="{width}" height="{HEIGHT}" rx="4"'
        colour = "#fff3d6" if room in ("jobs", "workers") else "#e8f0fa"  # those that import ray
        parts.append(f'<rect {box} fill="{colour}" stroke="#456"/>')
        parts.append(f'<text x="{x:g}" y="{y + 5:g}" text-anchor="middle" fill="#123">{room}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(picture())
