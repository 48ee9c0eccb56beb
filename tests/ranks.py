"""Run a function in two processes that gloo joins.

What they run stands beside the helpers: a spawned process finds it by the name
of its module, and ``tests.FOLDER`` is not found where mmsegmentation 1.2.2
is installed, which brings a package ``tests``. They meet through a port that
the first process holds open: a store in a file, which the last of them
removes, left one waiting for ever with torch 2.1.2.
"""

from __future__ import annotations

from typing import Any, Callable, Tuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def run_ranks(function: Callable, *args: Any) -> None:
    """Call ``function(rank, *args)`` in each of two processes, on a CPU."""
    store = dist.TCPStore(
        '127.0.0.1', 0, is_master=True, wait_for_workers=False
    )
    mp.spawn(_join, (store.port, function, args), nprocs=RANKS)


def _join(rank: int, port: int, function: Callable, args: Tuple) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore(
        '127.0.0.1', port, is_master=False, wait_for_workers=False
    )
    dist.init_process_group('gloo', store=store, rank=rank, world_size=RANKS)
    function(rank, *args)
    dist.destroy_process_group()
