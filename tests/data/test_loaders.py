import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from bat_dist.data import ffcv_loader
from bat_dist.data.beton import ensure_beton, import_ffcv
from bat_dist.data.ffcv_loader import FfcvLoader
from bat_dist.data.loaders import KINDS, Batch, LoaderUnavailable, Share, dataset_loader
from bat_dist.data.memory_loader import MemoryLoader, shared_tensor

NUM_SAMPLES = 300
PADDING = 4


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def self_describing_split(count=NUM_SAMPLES, size=32):
    """Image i says i in two of its channels, all over; the third is noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    index = np.arange(count)
    images[..., 0] = (index % 256)[:, None, None]
    images[..., 1] = (index // 256 + 1)[:, None, None]
    return SimpleNamespace(images=images, labels=index * 7 % 10)


def make(kind, split, folder, *, crop_padding=PADDING, flip=True, crop_scale=None, crop_size=None):
    spec = SimpleNamespace(crop_padding=crop_padding, flip=flip, crop_scale=crop_scale, crop_size=crop_size)
    dataset = SimpleNamespace(train=split, fingerprint="0f", spec=spec)
    return dataset_loader(kind, cast(Any, dataset), "train", cache_dir=folder)


@pytest.fixture(scope="module")
def split():
    return self_describing_split()


@pytest.fixture(scope="module")
def loaders(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return {kind: make(kind, split, folder) for kind in KINDS}


@pytest.fixture(params=KINDS)
def loader(loaders, request):
    return loaders[request.param]


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for tensor, its_other in zip(batch, other, strict=True):
            assert torch.equal(tensor, its_other)


def assert_describe_themselves(batches, split):
    """The centre of an image is never cropped away, so it says which image this is."""
    for images, labels, indices in batches:
        centre = (images[:, :2, images.shape[2] // 2, images.shape[3] // 2] * 255).round().long()
        assert torch.equal(centre[:, 0] + 256 * (centre[:, 1] - 1), indices)
        assert np.array_equal(labels, split.labels[indices.numpy()])


SUBSETS = [
    np.arange(NUM_SAMPLES),
    np.array([299]),
    np.random.default_rng(1).permutation(NUM_SAMPLES)[:210],
    np.arange(0, NUM_SAMPLES, 3)[:64],
]


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("indices", SUBSETS, ids=len)
def test_every_index_comes_once_with_its_image_and_label(loader, split, indices, batch_size):
    full, rest = divmod(len(indices), batch_size)
    for batches in (
        list(loader.train_epoch(indices, batch_size=batch_size, generator=seeded(0))),
        list(loader.eval_epoch(indices, batch_size=batch_size)),
    ):
        assert [len(batch.labels) for batch in batches] == [batch_size] * full + [rest] * bool(rest)
        assert Counter(torch.cat([batch.indices for batch in batches]).tolist()) == Counter(indices.tolist())
        assert_describe_themselves(batches, split)


def test_batches_are_of_the_contract(loader):
    for batch in (
        next(loader.train_epoch(range(10), batch_size=5, generator=seeded(0))),
        next(loader.eval_epoch(batch_size=5)),
    ):
        assert batch.images.shape == (5, 3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= batch.images.min() < batch.images.max() <= 1
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.labels.shape == batch.indices.shape == (5,)


@pytest.mark.parametrize(
    ("size", "how"),
    [
        (32, {"crop_padding": 4, "flip": True}),
        (32, {"crop_padding": 0, "flip": True}),
        (64, {"crop_padding": 8, "flip": True}),
        (8, {"crop_padding": 1, "flip": False}),
        (32, {"crop_padding": 0, "flip": True, "crop_scale": 0.08, "crop_size": 24}),
    ],
    ids=str,
)
def test_both_loaders_yield_the_same_bits(size, how, tmp_path):
    split = self_describing_split(150, size)
    memory, ffcv = (make(kind, split, tmp_path, **how) for kind in ("memory", "ffcv"))
    indices = np.random.default_rng(2).permutation(150)[:101]
    assert_same(memory.eval_epoch(batch_size=32), ffcv.eval_epoch(batch_size=32))
    mine, other = seeded(1), seeded(1)
    for batch_size, drop_last in ((32, False), (7, True), (101, True)):
        for _ in range(2):
            epoch = {"batch_size": batch_size, "drop_last": drop_last}
            batches = list(ffcv.train_epoch(indices, generator=other, **epoch))
            assert_same(memory.train_epoch(indices, generator=mine, **epoch), batches)
            assert_describe_themselves(batches, split)
            assert torch.equal(mine.get_state(), other.get_state())


def test_train_epoch_is_the_naive_one(loader, split):
    """Written out image by image: the order, then all corners, then all flips are drawn."""
    indices = np.arange(40, 100)
    generator = seeded(5)
    order = indices[torch.randperm(60, generator=generator)]
    corners = torch.randint(2 * PADDING + 1, (60, 2), generator=generator).tolist()
    flips = torch.randint(2, (60,), generator=generator).tolist()
    batches = loader.train_epoch(indices, batch_size=16, generator=seeded(5))
    images = torch.cat([batch.images for batch in batches]).numpy()
    for image, index, (row, column), flip in zip(images, order, corners, flips, strict=True):
        padded = np.pad(split.images[index], ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        expected = padded[row : row + 32, column : column + 32]
        expected = (expected[:, ::-1] if flip else expected).astype(np.float32) / np.float32(255)
        assert np.array_equal(image, expected.transpose(2, 0, 1))


def test_an_epoch_is_a_function_of_the_generators_state(loader):
    generator = seeded(3)
    state = generator.get_state()
    first, second = (list(loader.train_epoch(range(200), batch_size=64, generator=generator)) for _ in range(2))
    assert not torch.equal(first[0].indices, second[0].indices)
    generator.set_state(state)
    assert_same(loader.train_epoch(range(200), batch_size=64, generator=generator), first)
    assert_same(loader.train_epoch(range(200), batch_size=64, generator=generator), second)


def test_augmentation_differs_between_epochs(loader):
    generator = seeded(3)
    images = torch.cat([next(loader.train_epoch([5], batch_size=1, generator=generator)).images for _ in range(20)])
    assert len(torch.unique(images, dim=0)) > 15


def test_draws_depend_neither_on_consumption_nor_on_batch_size(loader):
    whole, left, other = seeded(4), seeded(4), seeded(4)
    batches = list(loader.train_epoch(range(200), batch_size=200, generator=whole))
    next(loader.train_epoch(range(200), batch_size=10, generator=left))
    assert torch.equal(whole.get_state(), left.get_state())
    epoch = loader.train_epoch(range(200), batch_size=10, generator=other)
    torch.rand(5, generator=other)
    assert torch.equal(torch.cat([batch.images for batch in epoch]), batches[0].images)


def test_changing_the_indices_meanwhile_does_nothing(loader):
    indices = np.arange(50)
    epoch = loader.eval_epoch(indices, batch_size=10)
    indices[:] = 0
    assert torch.cat([batch.indices for batch in epoch]).tolist() == list(range(50))


def test_eval_keeps_order_and_pixels_and_never_drops(loader, split):
    order = np.random.default_rng(3).permutation(NUM_SAMPLES)[:130]
    for indices, expected in (
        (order, order),
        (None, np.arange(NUM_SAMPLES)),
        (torch.from_numpy(order), order),
    ):
        batches = list(loader.eval_epoch(indices, batch_size=64))
        assert np.array_equal(torch.cat([batch.indices for batch in batches]), expected)
        pixels = split.images[expected].astype(np.float32) / np.float32(255)
        assert np.array_equal(torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1), pixels)


def test_drop_last_drops_the_last_partial_batch_alone(loader):
    kept, whole = (
        list(loader.train_epoch(range(100), batch_size=32, generator=seeded(0), drop_last=drop_last))
        for drop_last in (True, False)
    )
    assert len(whole) == 4
    assert_same(kept, whole[:3])
    (only,) = loader.train_epoch(range(32), batch_size=32, generator=seeded(0), drop_last=True)
    assert len(only.labels) == 32
    with pytest.raises(ValueError, match="drop_last leaves nothing"):
        loader.train_epoch(range(31), batch_size=32, generator=seeded(0), drop_last=True)


@pytest.mark.parametrize(
    ("indices", "batch_size", "message"),
    [
        ([0, NUM_SAMPLES], 8, r"must lie in \[0, 300\), got 300"),
        ([0, -1], 8, r"must lie in \[0, 300\), got -1"),
        ([3, 5, 3, 7], 8, "must be distinct, got 3 2 times"),
        ([], 8, "at least one position"),
        ([[1, 2]], 8, "at least one position"),
        ([1.0], 8, "must be integers, got float64"),
        (np.ones(NUM_SAMPLES, bool), 8, "np.flatnonzero"),
        ([1], 0, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(loader, indices, batch_size, message):
    with pytest.raises(ValueError, match=message):
        loader.train_epoch(indices, batch_size=batch_size, generator=seeded(0))
    with pytest.raises(ValueError, match=message):
        loader.eval_epoch(indices, batch_size=batch_size)


@pytest.mark.parametrize(("ranks", "count"), [(1, 40), (2, 40), (2, 37), (4, 39), (4, 44)])
def test_shares_of_the_ranks_are_the_whole_batches(loader, ranks, count):
    assert_shares_are_the_whole(loader, ranks, count)


@pytest.mark.parametrize(("ranks", "count"), [(2, 37), (4, 39)])
def test_shares_of_resized_crops_are_the_whole_batches(split, ranks, count, tmp_path):
    assert_shares_are_the_whole(make("memory", split, tmp_path, crop_padding=0, crop_scale=0.08), ranks, count)


def assert_shares_are_the_whole(loader, ranks, count):
    """Image by image what one process would have drawn; nothing twice, nothing lost."""
    arguments = {"batch_size": 8, "drop_last": False}
    whole = list(loader.train_epoch(np.arange(count), generator=seeded(5), **arguments))
    shares = [
        list(loader.train_epoch(np.arange(count), generator=seeded(5), share=Share(rank, ranks), **arguments))
        for rank in range(ranks)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        sizes = [len(part.labels) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert_same([batch], [Batch(*map(torch.cat, zip(*parts, strict=True)))])


def test_shares_that_cannot_be(loader):
    arguments = {"batch_size": 8, "generator": seeded(0)}
    with pytest.raises(ValueError, match="divisible by the 3 ranks, got 8"):
        loader.train_epoch(np.arange(40), share=Share(0, 3), **arguments)
    with pytest.raises(ValueError, match="the last batch has 1 samples for 2 ranks: use drop_last"):
        loader.train_epoch(np.arange(33), share=Share(0, 2), **arguments)
    assert len(list(loader.train_epoch(np.arange(33), share=Share(0, 2), drop_last=True, **arguments))) == 4


def test_leaving_an_epoch_early_stops_its_thread(loader):
    before = threading.enumerate()
    for _ in loader.eval_epoch(batch_size=2):
        break
    assert threading.enumerate() == before

    def fail():
        for batch in loader.eval_epoch(batch_size=2):
            raise ZeroDivisionError(batch)

    with pytest.raises(ZeroDivisionError):
        fail()
    assert threading.enumerate() == before

    epoch = loader.train_epoch(range(NUM_SAMPLES), batch_size=2, generator=seeded(0))
    assert threading.enumerate() == before
    next(epoch)
    epoch.close()
    assert threading.enumerate() == before
    assert sum(len(batch.labels) for batch in loader.eval_epoch(batch_size=7)) == NUM_SAMPLES


def test_epochs_may_be_open_at_once(loader, split):
    train = loader.train_epoch(range(200), batch_size=9, generator=seeded(0))
    batches = [next(train) for _ in range(3)]
    assert_describe_themselves(loader.eval_epoch(batch_size=50), split)
    batches += train
    assert_same(batches, loader.train_epoch(range(200), batch_size=9, generator=seeded(0)))


def test_split_is_checked(split):
    for images, labels, message in (
        (split.images.astype(np.float32), split.labels, "images must be uint8"),
        (split.images[:0], split.labels[:0], "images must be uint8"),
        (split.images[..., :1], split.labels, "images must be uint8"),
        (split.images, split.labels[:-1], "one for each of 300 images"),
        (split.images, split.labels.astype(np.int32), "labels must be int64"),
    ):
        with pytest.raises(ValueError, match=message):
            MemoryLoader(images, labels, crop_padding=0, flip=False)


def test_memory_loader_uses_read_only_arrays_in_place(split):
    memory, labels = np.zeros_like(split.images), split.labels.copy()
    images = memory.view()
    images.flags.writeable = labels.flags.writeable = False
    assert shared_tensor(images).data_ptr() == images.ctypes.data
    loader = MemoryLoader(images, labels, crop_padding=PADDING, flip=True)
    memory[:] = split.images
    read = torch.cat([batch.images for batch in loader.eval_epoch(batch_size=64)])
    assert torch.equal(read, torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255)
    for batch in loader.train_epoch(range(NUM_SAMPLES), batch_size=64, generator=seeded(0)):
        for tensor in batch:
            tensor.zero_()  # batches belong to the caller
    assert np.array_equal(images, split.images)
    assert np.array_equal(labels, split.labels)


def test_batches_belong_to_the_caller(loader):
    expected = list(loader.eval_epoch(batch_size=64))
    for batch in loader.eval_epoch(batch_size=64):
        for tensor in batch:
            tensor.fill_(1)
    assert_same(loader.eval_epoch(batch_size=64), expected)


def test_unknown_kind(split, tmp_path):
    with pytest.raises(ValueError, match="unknown loader 'torch': choose one of ffcv, memory"):
        make("torch", split, tmp_path)


def test_memory_loader_needs_no_ffcv(split, tmp_path, monkeypatch):
    import_ffcv.cache_clear()
    monkeypatch.setitem(sys.modules, "ffcv", None)
    make("memory", split, tmp_path)
    with pytest.raises(LoaderUnavailable, match="--loader memory"):
        make("ffcv", split, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ffcv_leaves_torchs_threads_and_numpys_generator_alone(split, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    np.random.seed(0)
    expected = np.random.get_state(legacy=False)["state"]["key"].copy()
    try:
        loader = make("ffcv", split, tmp_path)
        for _ in loader.eval_epoch(batch_size=20):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], expected)


def test_one_compilation_serves_every_batch_size(loaders, monkeypatch):
    import ffcv.loader.loader as module

    def fail(*_):
        raise AssertionError("compiled again")

    next(loaders["ffcv"].eval_epoch(batch_size=3))
    monkeypatch.setattr(module.Compiler, "compile", classmethod(lambda _, code, *__: code))
    monkeypatch.setattr(module.Graph, "codegen_all", fail)
    assert sum(len(batch.labels) for batch in loaders["ffcv"].eval_epoch(batch_size=41)) == NUM_SAMPLES


@pytest.fixture
def fresh_ffcv(split, tmp_path):
    path = ensure_beton(split.images, split.labels, fingerprint="0f", split_name="train", cache_dir=tmp_path)
    return FfcvLoader(path, crop_padding=PADDING, flip=True)


def test_leaving_an_epoch_early_reads_no_further(fresh_ffcv, monkeypatch):
    import ffcv.loader.epoch_iterator as module

    run_pipeline = module.EpochIterator.run_pipeline
    calls = []
    monkeypatch.setattr(module.EpochIterator, "run_pipeline", lambda *args: (calls.append(1), run_pipeline(*args))[1])
    epoch = fresh_ffcv.eval_epoch(batch_size=1)
    next(epoch)
    epoch.close()
    assert len(calls) < 10


@pytest.mark.timeout(600)
def test_an_error_in_ffcvs_thread_surfaces(fresh_ffcv, monkeypatch):
    import ffcv.loader.epoch_iterator as module

    run_pipeline = module.EpochIterator.run_pipeline

    def fail_at_third(self, number, *args):
        if number == 2:
            raise OSError("disk on fire")
        return run_pipeline(self, number, *args)

    monkeypatch.setattr(module.EpochIterator, "run_pipeline", fail_at_third)
    epoch = fresh_ffcv.eval_epoch(batch_size=10)
    assert [next(epoch).indices[0].item() for _ in range(2)] == [0, 10]
    with pytest.raises(RuntimeError, match=r"FFCV failed to read .*\.beton: OSError\('disk on fire'\)"):
        next(epoch)


@pytest.mark.timeout(600)
def test_a_thread_that_dies_without_a_word_is_noticed(fresh_ffcv, monkeypatch):
    monkeypatch.setattr(ffcv_loader._epoch_type(), "run", lambda _: None)
    with pytest.raises(RuntimeError, match="died without a word"):
        next(fresh_ffcv.eval_epoch(batch_size=10))


@pytest.mark.timeout(600)
def test_a_file_that_is_gone_surfaces(fresh_ffcv):
    fresh_ffcv._ffcv.fname = fresh_ffcv._ffcv.reader._fname = "/nowhere.beton"
    with pytest.raises(FileNotFoundError):
        next(fresh_ffcv.eval_epoch(batch_size=10))
