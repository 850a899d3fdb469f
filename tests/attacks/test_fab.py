"""The projection against a linear program and the published one; FAB against the published path."""

import numpy as np
import pytest
import torch
from pyautoattack.fab_projections import projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog

from bat_dist.attacks.fab import approach, fab_targeted, next_iterate, targets_lead
from bat_dist.attacks.frozen import attacked
from bat_dist.attacks.plane import to_plane
from tests.attacks.robust_nets import EPSILON, IDS, X, Y, golden_net, inputs_of


def planes(count=200, pixels=12):
    """Points with pixels at 0 and 1, normals with zeros, planes near, far and out of reach."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, pixels, generator=generator, dtype=torch.float64)
    normal = torch.randn(count, pixels, generator=generator, dtype=torch.float64)
    points[:, 0], points[:, 1], normal[::3, 2] = 0, 1, 0
    height = torch.randn(count, generator=generator, dtype=torch.float64) * torch.logspace(-3, 1.5, count)
    return points, normal, height


def shortest(points, normal, height):
    """min t with -t <= d <= t, height + normal d = 0, 0 <= points + d <= 1; None if there is none."""
    pixels = len(points)
    both = np.vstack(
        [np.hstack([np.eye(pixels), -np.ones((pixels, 1))]), np.hstack([-np.eye(pixels), -np.ones((pixels, 1))])]
    )
    bounds = [(-p, 1 - p) for p in points] + [(0, None)]
    found = linprog(
        np.r_[np.zeros(pixels), 1],
        A_ub=both,
        b_ub=np.zeros(2 * pixels),
        A_eq=[np.r_[normal, 0]],
        b_eq=[-height],
        bounds=bounds,
    )
    return found.fun if found.status == 0 else None


def test_the_projection_is_the_linear_programs():
    points, normal, height = planes()
    moves = to_plane(points, normal, height).move
    moved = points + moves
    assert moved.min() >= 0
    assert moved.max() <= 1
    expected = [shortest(*(part.numpy() for part in case)) for case in zip(points, normal, height, strict=True)]
    reached = torch.tensor([value is not None for value in expected])
    assert 20 < reached.sum() < 180
    lengths = torch.tensor([value or 0.0 for value in expected], dtype=torch.float64)
    assert torch.allclose(moves.abs().amax(1)[reached], lengths[reached], atol=1e-9)
    assert (height + (normal * moves).sum(1))[reached].abs().max() < 1e-9
    corner = torch.where(height.unsqueeze(1) * normal > 0, -points, 1 - points) * (normal != 0)
    assert torch.allclose(moves[~reached], corner[~reached])


def test_the_projection_is_the_published_one():
    points, normal, height = planes(pixels=192)
    theirs = projection_linf(points, normal, (normal * points).sum(1) - height)
    assert torch.allclose(to_plane(points, normal, height).move, theirs, atol=1e-12)


def test_passes_that_are_counted_end_where_the_others_do():
    """Bit for bit, where they were enough, and it is told where they were not."""
    points, normal, height = planes(pixels=192)
    expected = to_plane(points, normal, height)
    assert expected.is_shortest.all()
    for passes in (1, 2, 3, 20):
        found = to_plane(points, normal, height, passes=passes)
        assert torch.equal(found.move[found.is_shortest], expected.move[found.is_shortest])
        assert found.is_shortest.all() == (passes == 20)


def test_a_normal_of_zeros_moves_nothing():
    assert not to_plane(torch.rand(3, 5), torch.zeros(3, 5), torch.tensor([1.0, 0, -1])).move.any()


def test_a_plane_through_the_point_moves_nothing():
    points, normal, _ = planes()
    assert not to_plane(points, normal, torch.zeros(len(points), dtype=torch.float64)).move.any()


def test_lead_by_hand():
    assert targets_lead(torch.tensor([[1.0, 4, 2]]), torch.tensor([[1, 2]])).tolist() == [-2]


def test_the_path_of_the_published_code():
    """With an epsilon that ends nothing; forwards of 30 steps, in which rounding does not yet grow large."""
    net = golden_net().requires_grad_(False)
    right = net(X).argmax(1) == Y
    x, y, steps = X[right], Y[right], 30
    target = net(x).argsort(dim=1, descending=True)[:, 1]
    rival = FABAttack_PT(net, n_iter=steps, eps=1e-4, norm="Linf", targeted=True, device="cpu")
    rival.target_class = 2
    theirs = inputs_of(net, lambda: rival.attack_single_run(x, y, is_targeted=True))[2:]
    with attacked(net, x, y) as (victim, *_):
        ours = inputs_of(net, lambda: approach(victim, x, y, target, epsilon=1e-4, num_steps=steps))
    assert len(ours) == len(theirs) == 2 * steps
    apart = (torch.stack(ours) - torch.stack(theirs)).abs().amax(dim=(0, 2, 3, 4))
    assert (apart <= 1e-4).sum() >= len(x) - 3
    adversarial = torch.stack([net(images).argmax(1) != y for images in ours[1::2]])
    assert adversarial.any(0).sum() > 40  # so that steps back were taken


def test_seed_and_id_do_not_matter():
    one, other = (
        fab_targeted(golden_net(), X, Y, epsilon=EPSILON, seed=seed, ids=ids, num_steps=10, num_targets=2)
        for seed, ids in ((0, IDS), (1, IDS + 7))
    )
    assert torch.equal(one.x_adv, other.x_adv)


@pytest.mark.parametrize("epsilon", [EPSILON, 0.01])
def test_nothing_beyond_epsilon_counts(epsilon):
    robust, x_adv = fab_targeted(golden_net(), X, Y, epsilon=epsilon, seed=0, ids=IDS, num_steps=20, num_targets=3)
    assert (x_adv - X).abs().max() <= epsilon + 1e-6
    assert not robust.all()


def test_a_step_by_hand():
    """One pixel, plane at 0.7: 0.1 from the iterate, 0.2 from the image, so alpha would be 1/3 and is 0.1.

    0.9 (0.6 + 1.05 * 0.1) + 0.1 (0.5 + 1.05 * 0.2) = 0.7055.
    """
    pixel = torch.ones(1, 1, dtype=torch.float64)
    after, _ = next_iterate(0.6 * pixel, 0.5 * pixel, 3 * pixel, torch.tensor([-0.3], dtype=torch.float64))
    assert after.item() == pytest.approx(0.7055)
