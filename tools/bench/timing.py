"""Times of things that run in turn, and what they ran on."""

from __future__ import annotations

import csv
import ctypes
import io
import math
import os
import platform
import random
import statistics
import subprocess
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Tuple

import torch

from mmconvnext.files import write_text

Row = Dict[str, object]
PROC = Path('/proc/self')
KNOWS_PEAK = PROC.joinpath('clear_refs').exists()
LIBRARIES = ('triton', 'timm', 'transformers', 'onedl-mmpretrain')
LIBRARIES += ('onnxruntime', 'openvino')


def pair(name: str, reference: Callable, ours: Callable, repeats: int) -> Row:
    """Time two functions in turn; the first round only warms up."""
    times: Tuple[List[float], List[float]] = ([], [])
    for _ in range(repeats + 1):
        for run, kept in zip((reference, ours), times):
            kept.append(milliseconds(run))
    ratios = [b / a for a, b in zip(*times)][1:]
    return dict(
        name=name,
        reference_ms=round(statistics.median(times[0][1:]), 1),
        ours_ms=round(statistics.median(times[1][1:]), 1),
        ratio=round(statistics.median(ratios), 2),
        lowest=round(min(ratios), 2),
        highest=round(max(ratios), 2),
    )


def rounds(
    runs: Mapping[str, Callable[[], object]], repeats: int, rest: float = 0.0
) -> Dict[str, List[float]]:
    """Time all runs once a round, in random order; the first round warms up.

    Args:
        rest: seconds before each run, for threads of the one before that
            still look for work.

    Returns:
        Milliseconds per run and round.
    """
    times: Dict[str, List[float]] = {name: [] for name in runs}
    order = list(runs)
    shuffle = random.Random(0).shuffle
    for _ in range(repeats + 1):
        shuffle(order)
        for name in order:
            time.sleep(rest)
            times[name].append(milliseconds(runs[name]))
    return {name: kept[1:] for name, kept in times.items()}


def milliseconds(run: Callable[[], object]) -> float:
    """Time one run, with its launches; where there is a GPU, by its events.

    They are marked on an idle GPU, so a run of the CPU alone counts too.
    """
    if not torch.cuda.is_available():
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize()
    events[0].record()
    run()
    events[1].record()
    torch.cuda.synchronize()
    return events[0].elapsed_time(events[1])


def peak_mib(run: Callable[[], object], device: str = 'cpu') -> float:
    """MiB that a run needs at its peak on top of what was there before.

    On a GPU what PyTorch allocated, elsewhere what the process occupies, with
    heap fragmentation included; NaN on systems other than Linux, which do
    not report it.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not KNOWS_PEAK:
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the C library kept
    PROC.joinpath('clear_refs').write_text('5', encoding='utf-8')  # peak = now
    before = _status('VmHWM')
    run()
    return (_status('VmHWM') - before) / 2**10


def _status(key: str) -> int:
    lines = PROC.joinpath('status').read_text(encoding='utf-8').splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(key))


def compare(times: Mapping[str, List[float]], ours: str) -> List[Row]:
    """Medians, and of the rounds' ratios to ``ours`` too.

    A ratio above 1 says how many times faster ``ours`` is.
    """
    rows = []
    for name, kept in times.items():
        ratios = [a / b for a, b in zip(kept, times[ours])]
        rows.append(
            dict(
                subject=name,
                ms=round(statistics.median(kept), 1),
                ratio=round(statistics.median(ratios), 2),
                lowest=round(min(ratios), 2),
                highest=round(max(ratios), 2),
            )
        )
    return rows


def environment(threads: int) -> Dict[str, str]:
    return dict(
        date=time.strftime('%Y-%m-%d'),
        processor=_processor(),
        driver=_driver(),
        threads=str(threads),
        load=' '.join(f'{x:.1f}' for x in os.getloadavg()),
        python=platform.python_version(),
        torch=torch.__version__,
        libraries=_libraries(),
    )


def _libraries() -> str:
    found = {x.name: x.version for x in distributions()}
    return ' '.join(f'{k} {found[k]}' for k in LIBRARIES if k in found)


def _driver() -> str:
    """The versions of CUDA and of its driver, empty without a GPU."""
    if not torch.cuda.is_available():
        return ''
    asked = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv']
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    return f'CUDA {torch.version.cuda}, driver {answer.stdout.split()[-1]}'


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    lines = (
        info.read_text(encoding='utf-8').splitlines() if info.exists() else []
    )
    names = [x.split(': ')[1] for x in lines if x.startswith('model name')]
    return names[0] if names else platform.processor()


def write_csv(path: Path, rows: List[Row], about: Dict[str, str]) -> None:
    # A mode's rows may differ in their columns.
    columns = dict.fromkeys(key for row in rows for key in row)
    stream = io.StringIO(newline='')
    writer = csv.DictWriter(stream, [*columns, *about])
    writer.writeheader()
    writer.writerows({**row, **about} for row in rows)
    write_text(stream.getvalue(), path)
