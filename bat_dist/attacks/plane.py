"""The nearest point of a plane inside the box [0, 1], in l_inf."""

from itertools import count
from typing import NamedTuple

import torch

from bat_dist.attacks.linf import Images, by_image
from bat_dist.attacks.losses import PerExample
from bat_dist.attacks.standing import Flags


class PlaneMove(NamedTuple):
    """Moves onto a plane.  is_shortest: for each image, whether Newton's method had arrived."""

    move: Images
    is_shortest: Flags


def to_plane(points: Images, normal: Images, height: PerExample, *, passes: int | None = None) -> PlaneMove:
    """The shortest move d with height + <normal, d> = 0 and points + d in [0, 1]; height = <normal, point> - offset.

    Every pixel goes against the height, by the same length or to the end of the box, which comes first:
    d_i = -sign(height * normal_i) * min(length, room_i), and sum_i |normal_i| min(length, room_i) = |height| fixes the
    length (arXiv:1907.02044, Eq. 4). Where the plane is out of the box's reach all go to the end.

    The sum, as a function of the length, is concave and made of lines, so Newton's method from 0 climbs to the solution
    without passing it and is exact once it is on the right line: a few passes over the pixels, and no sorting.
    passes: how many, at which a GPU need not be waited for; None: as many as it takes. A pass more changes no bit.
    """
    direction = normal.sign() * by_image(torch.where(height >= 0, -1.0, 1.0), normal)
    room = torch.where(direction > 0, 1 - points, points).flatten(1)
    weight, wanted = normal.flatten(1).abs(), height.abs()
    weighted_room, free = weight * room, room > 0
    slope, left = (weight * free).sum(dim=1), wanted  # where there is no room, none is taken
    for number in count(1):
        length = torch.where(slope > 0, left.clamp(min=0) / slope, torch.inf).unsqueeze(1)
        still_free = free & (room > length)
        if number == passes or (passes is None and torch.equal(still_free, free)):
            is_shortest = (still_free == free).all(dim=1) if passes else torch.ones_like(height, dtype=torch.bool)
            return PlaneMove(direction * torch.minimum(room, length).view_as(points), is_shortest)
        free = still_free
        slope, left = (weight * free).sum(dim=1), wanted - (weighted_room * ~free).sum(dim=1)
    raise AssertionError("counting has no end")
