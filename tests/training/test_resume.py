"""The parts that make a resumed run equal to the uninterrupted one."""

import itertools
import subprocess
import sys

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from mmconvnext.training.resume import (
    MAX_SEED,
    _Batches,
    _position_sampler,
    seed_at,
)

SIZE, BATCH = 10, 3


def loader(sampler_type: type = InfiniteSampler) -> DataLoader:
    """Batches of numbers, shuffled as training shuffles images."""
    data = list(range(SIZE))
    sampler = sampler_type(data, shuffle=True, seed=5)
    return DataLoader(data, batch_size=BATCH, sampler=sampler)


def take(batches, count: int) -> list:
    return [batch.tolist() for batch in itertools.islice(batches, count)]


def test_a_seed_follows_from_seed_and_step() -> None:
    assert seed_at(3, 7) == seed_at(3, 7)
    grid = [seed_at(seed, step) for seed in range(50) for step in range(200)]
    assert all(0 <= value < MAX_SEED for value in grid)
    # 10,000 draws of 2**31 values: 0.02 equal pairs are to be expected.
    assert len(set(grid)) == len(grid)
    assert seed_at(0, 1) != seed_at(1, 0)


@pytest.mark.parametrize('neighbour', [(0, 1), (1, 0)], ids=['step', 'seed'])
def test_neighbours_are_unrelated(neighbour: tuple) -> None:
    """Half of the 31 bits differ; of n and n + 1 they are two."""
    distances = [
        bin(seed_at(7, n) ^ seed_at(7 + neighbour[0], n + neighbour[1]))
        for n in range(1000)
    ]
    mean = sum(bits.count('1') for bits in distances) / 1000
    # Five times the deviation of the mean, sqrt(31 / 4 / 1000).
    assert mean == pytest.approx(15.5, abs=0.45)


@pytest.mark.parametrize('step', [0, 1, 3, 4, 25])
def test_batches_go_on_where_the_run_stopped(step: int) -> None:
    whole = take(_Batches(loader(), 0), step + 8)
    resumed = loader()
    _position_sampler(resumed, step)
    assert take(_Batches(resumed, 0), 8) == whole[step:]


def test_skipping_loads_nothing() -> None:
    """By calls of next (mmengine 0.10.7) or skip_iter (0.10.12)."""
    wanted = take(_Batches(loader(), 0), 4)
    by_next = _Batches(loader(), 2)
    assert [next(by_next), next(by_next)] == [None, None]
    assert take(by_next, 4) == wanted
    at_once = _Batches(loader(), 2)
    at_once.skip_iter(2)
    assert take(at_once, 4) == wanted


def test_batches_never_end() -> None:
    """A sampler that ends starts again: here 4 batches an epoch."""
    batches = _Batches(loader(DefaultSampler), 0)
    first, second = take(batches, 4), take(batches, 4)
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == list(range(SIZE))


def test_a_sampler_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match='InfiniteSampler.*DefaultSampler'):
        _position_sampler(loader(DefaultSampler), 4)


PERSISTENT = """
from torch.utils.data import DataLoader
from mmconvnext.training.resume import _end_workers

batches = DataLoader(list(range(4)), num_workers=1, persistent_workers=True)
first = iter(batches)
print(iter(batches) is first)  # they would persist
_end_workers(batches)
print(iter(batches) is first)
del batches._iterator  # a torch that keeps it elsewhere
_end_workers(batches)
"""


def test_persistent_workers_are_ended_or_refused() -> None:
    # In a process of its own: a data worker is a copy of the whole process,
    # with the locks of whatever the tests before have loaded.
    done = subprocess.run(
        [sys.executable, '-c', PERSISTENT], capture_output=True, text=True
    )
    assert done.stdout.split() == ['True', 'False'], done.stderr
    assert done.returncode == 1
    assert 'set persistent_workers=False' in done.stderr.splitlines()[-1]
