"""Parts of the test images, such as the typical ones, are the same images for all networks of a table."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from bat_dist.results.rows import MethodRow, Network


def with_equal_subsets(rows: Sequence[MethodRow]) -> tuple[list[MethodRow], list[str]]:
    """The rows of a table, their networks without each subset that has other images than in most; and what to say.

    Scores that are computed again, from more trials, give other typical images, and evaluations of before keep theirs.
    Accuracies on different images are never averaged or compared.
    """
    networks = [network for row in rows for network in row.networks]
    numbers: dict[str, Counter[bytes]] = {}
    for network in networks:
        for name, images in dict.fromkeys(
            (name, members.tobytes()) for one in network.evaluations for name, members in one.subsets.items()
        ):
            numbers.setdefault(name, Counter())[images] += 1
    of_most = {name: number.most_common(1)[0][0] for name, number in numbers.items()}
    found, left_out = [], []
    for row in rows:
        kept = [_without_others(network, of_most) for network in row.networks]
        found.append(dataclasses.replace(row, networks=tuple(kept)))
        pairs = zip(row.networks, kept, strict=True)
        if without := [before.seed for before, after in pairs if after.subsets.keys() < before.subsets.keys()]:
            seeds = ", ".join(str(seed[0]) for seed in without if seed)
            left_out.append(f"{row.label}, {row.which} checkpoint" + (f", seed {seeds}" if seeds else ""))
    if not left_out:
        return found, []
    names = " and ".join(name for name, number in numbers.items() if len(number) > 1)
    return found, [
        f"{names} test images differ between evaluations, as when scores were computed again from more trials: these "
        f"columns are without {'; '.join(left_out)}. For all in one, write all evaluations again with the same scores: "
        "bat-dist reproduce does so for all methods and seeds that it is called with; else call bat-dist evaluate "
        "again for each --out with the same --scores (attacks that are done are kept)"
    ]


def _without_others(network: Network, of_most: Mapping[str, bytes]) -> Network:
    """The network without subsets that have other images than these."""
    evaluations = [
        dataclasses.replace(
            one,
            subsets={name: members for name, members in one.subsets.items() if members.tobytes() == of_most[name]},
        )
        for one in network.evaluations
    ]
    return dataclasses.replace(network, evaluations=tuple(evaluations))
