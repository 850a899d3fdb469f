"""Several ranks with parts of a batch, whose gradients DDP averages, train as one process with the whole batch.

Each rank is a thread with its own replica of a network; collectives meet at a barrier. A gather joins the ranks'
tensors in one graph, so that backward of the sum of the losses gives each replica the sum, over ranks, of the
gradients that reach it: what the contract of `Ranks.gather` says.
"""

import copy
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from bat_dist.attacks.noise import image_keys
from bat_dist.methods.bat import Bat
from bat_dist.methods.gairat import Gairat
from bat_dist.methods.mart import Mart
from bat_dist.methods.parallel import ALONE, Ranks, mean, weighted_mean
from bat_dist.methods.pgd_at import PgdAt
from bat_dist.methods.trades import Trades
from tests.helpers.waiting import PATIENCE

LABELS = [0, 0, 1, 1, 2, 0, 2, 1]
MEM = [0.9, 0.0, 0.8, 0.0, 0.0, 0.1, 0.0, 0.0]  # the first ranks have the atypical samples
KAPPA = [0, 1, 0, 3, 10, 9, 10, 7]
SPLITS = [(4, 4), (5, 3), (3, 3, 2), (1, 7)]
TOLERANCE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)

    def forward(self, images):
        features = torch.tanh(self.body(images))
        return self.head(features), features


@functools.cache
def problem():
    """A network, and a batch of eight: natural and adversarial images, labels, mem, kappa."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, images = Network().double(), torch.randn(8, 6, dtype=torch.float64)
        adversarial = images + 0.3 * torch.randn(8, 6, dtype=torch.float64)
    mem = torch.tensor(MEM, dtype=torch.float64)
    return network, (images, adversarial, torch.tensor(LABELS), mem, torch.tensor(KAPPA))


def pgd_at(network, images, adversarial, labels, mem, kappa, ranks):
    return PgdAt().objective(network(adversarial)[0], labels, ranks=ranks)


def trades(network, images, adversarial, labels, mem, kappa, ranks):
    return Trades().objective(network(images)[0], network(adversarial)[0], labels, ranks=ranks)


def mart(network, images, adversarial, labels, mem, kappa, ranks):
    return Mart().objective(network(images)[0], network(adversarial)[0], labels, ranks=ranks)


def gairat(network, images, adversarial, labels, mem, kappa, ranks, **settings):
    logits, _ = network(adversarial)
    return Gairat(**settings).objective(logits, labels, kappa, num_steps=10, progress=0.9, ranks=ranks)


def bat(network, images, adversarial, labels, mem, kappa, ranks, **settings):
    logits, features = network(adversarial)
    keys = image_keys(3, "test", (1e6 * mem.nan_to_num()).long())  # a sample's own, on whatever rank it is
    return Bat(**settings).objective(logits, features, labels, mem, ranks=ranks, keys=keys)


METHODS = {
    "pgd_at": pgd_at,
    "trades": trades,
    "mart": mart,
    "gairat": gairat,
    "gairat sigmoid": functools.partial(gairat, function="sigmoid"),
    "gairat before it begins": functools.partial(gairat, begin=1.0),
    "bat": bat,
    "bat, weights alone": functools.partial(bat, beta=0),
    "bat, discrimination alone": functools.partial(bat, alpha=0, beta=5),
    "bat as printed": functools.partial(bat, denominator="neg_only", unit_length=False, downweight="as_printed", tau=1),
    "bat, anchors": functools.partial(bat, beta=5, denominator="supcon", average="anchors", sigma_is_typical=True),
    "bat, drawn negatives": functools.partial(bat, beta=5, num_negatives=2),
}
WEIGHTED = [name for name in METHODS if name.startswith(("gairat", "bat")) and name != "gairat before it begins"]
GATHERED = [name for name in METHODS if name.startswith("bat") and name != "bat, weights alone"]


# --- the simulation


class Meeting:
    """Collectives between threads: each hands in a tensor and sees what all handed in."""

    def __init__(self, size):
        self.size, self.barrier = size, threading.Barrier(size, timeout=PATIENCE)
        self.table: list[torch.Tensor] = [torch.empty(0)] * size
        self.calls = [[] for _ in range(size)]

    def exchange(self, rank, name, tensor):
        self.calls[rank].append((name, tensor.dtype, tensor.shape[1:]))
        self.table[rank] = tensor
        self.barrier.wait()
        everyone = list(self.table)
        self.barrier.wait()
        return everyone

    def ranks(self, rank):
        return Ranks(
            self.size,
            sum=lambda tensor: torch.stack(self.exchange(rank, "sum", tensor)).sum(0).detach(),
            gather=lambda tensor: torch.cat(self.exchange(rank, "gather", tensor)),
        )


def loss_and_gradient(losses, replicas):
    """Mean loss, and the mean over replicas of their gradients, as DDP has it."""
    torch.stack(losses).sum().backward()
    gradients = [torch.cat([p.grad.flatten() for p in replica.parameters()]) for replica in replicas]
    return torch.stack(losses).mean().detach(), torch.stack(gradients).mean(0)


def on_ranks(method, split, tamper=lambda ranks, rank: ranks):
    network, batch = problem()
    meeting, replicas = Meeting(len(split)), [copy.deepcopy(network) for _ in split]
    parts = list(zip(*(tensor.split(split) for tensor in batch), strict=True))

    def run(rank):
        return method(replicas[rank], *parts[rank], ranks=tamper(meeting.ranks(rank), rank))

    with ThreadPoolExecutor(len(split)) as pool:
        losses = list(pool.map(run, range(len(split))))
    return *loss_and_gradient(losses, replicas), meeting.calls


def on_one(method):
    network, batch = problem()
    network = copy.deepcopy(network)
    return loss_and_gradient([method(network, *batch, ranks=ALONE)], [network])


# --- the truth


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_ranks_train_as_one_process(name, split):
    loss, gradient, calls = on_ranks(METHODS[name], split)
    expected_loss, expected_gradient = on_one(METHODS[name])
    torch.testing.assert_close(loss, expected_loss, **TOLERANCE)
    torch.testing.assert_close(gradient, expected_gradient, **TOLERANCE)
    assert all(called == calls[0] for called in calls)  # else they would wait for each other for ever


def test_no_part_of_the_batch_changes_which_collectives_are_called():
    """A rank whose samples are all atypical still takes part in the gather."""
    _, _, calls = on_ranks(METHODS["bat"], (1, 7))
    assert [name for name, *_ in calls[0]] == ["sum", "gather", "gather", "gather"]


# --- the simulation sees what it is there for


def differ(name, split, tamper):
    loss, gradient, _ = on_ranks(METHODS[name], split, tamper)
    expected_loss, expected = on_one(METHODS[name])
    return bool((loss - expected_loss).abs() > 1e-3), bool((gradient - expected).norm() > 1e-3 * expected.norm())


@pytest.mark.parametrize("name", METHODS)
def test_each_rank_for_itself_would_be_seen(name):
    """Even plain means: with batches of 5 and 3, a mean of means is not the mean."""
    assert differ(name, (5, 3), lambda ranks, rank: ALONE) == (True, True)


@pytest.mark.parametrize("name", WEIGHTED)
def test_each_rank_for_itself_would_be_seen_at_equal_sizes(name):
    assert differ(name, (4, 4), lambda ranks, rank: ALONE) == (True, True)


@pytest.mark.parametrize("name", METHODS)
def test_a_sum_left_out_would_be_seen(name):
    assert differ(name, (4, 4), lambda ranks, rank: Ranks(ranks.size, gather=ranks.gather)) == (True, True)


@pytest.mark.parametrize("name", GATHERED)
def test_a_gather_left_out_would_be_seen(name):
    assert differ(name, (4, 4), lambda ranks, rank: Ranks(ranks.size, sum=ranks.sum)) == (True, True)


@pytest.mark.parametrize("name", GATHERED)
def test_a_gather_that_passes_on_too_little_gradient_would_be_seen(name):
    """The own gradient alone is too small by the number of ranks; multiplied by it, it is right."""

    def with_own_gradient(times):
        def tamper(ranks, rank):
            def gather(tensor):
                if tensor.is_floating_point():
                    tensor = times * tensor - (times - 1) * tensor.detach()  # the same value
                rows = list(ranks.gather(tensor).split(4))
                return torch.cat([part if r == rank else part.detach() for r, part in enumerate(rows)])

            return Ranks(ranks.size, ranks.sum, gather)

        return tamper

    assert differ(name, (4, 4), with_own_gradient(1)) == (False, True)
    assert differ(name, (4, 4), with_own_gradient(2)) == (False, False)


# --- the weighted mean


def test_a_weighted_mean_written_out():
    values, weights = torch.tensor([1.0, 2.0, 4.0], requires_grad=True), torch.tensor([1.0, 0.0, 3.0])
    loss = weighted_mean(values, weights, ALONE)
    loss.backward()
    assert loss == (1 + 12) / 4
    assert values.grad is not None
    assert values.grad.tolist() == [0.25, 0, 0.75]
    assert mean(values, ALONE) == torch.tensor(7 / 3)


def test_a_rank_without_samples_has_a_share_of_zero():
    ranks = Ranks(2, sum=lambda local: local + 5)
    assert mean(torch.zeros(0), ranks) == 0
