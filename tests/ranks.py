"""Run a function in two processes that gloo joins.

The function must be in a module next to this one. A spawned process imports
that module by name, and mmsegmentation 1.2.2 installs a package ``tests`` that
hides our folders.

The processes meet through a port of the calling process. A store in a file
made one of them hang with torch 2.1.2.
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
