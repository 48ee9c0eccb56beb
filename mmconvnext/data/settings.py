"""Settings for training on a folder, each with the reason for it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from ..archs import get_arch
from .labels import Labels
from .splits import Split
from .summary import Summary

TASKS = ('seg', 'det', 'boxes')
# Archs for whose heads a CPU is enough; without a GPU all get these heads.
SMALL_ARCHS = ('atto', 'femto', 'pico', 'nano')
# Longest (long, short) side in training.
LIMITS = {
    ('seg', True): (2048, 512),
    ('seg', False): (512, 384),
    ('det', True): (1333, 800),
    ('det', False): (512, 512),
}
CROPS = {True: 512, False: 224}
# Objects below this side, after scaling, are scaled up where it is possible.
FINE = 24
LARGEST_ZOOM = 2.0
STRIDE = 4  # of the finest level of the pyramid


class Machine(NamedTuple):
    """Where the project will be trained.

    Attributes:
        gpu: name of the GPU; empty for the CPU.
        memory: free bytes of the GPU, or of the machine.
        bfloat16: whether the GPU computes in it.
        online: whether published weights can be had.
        cores: that programs can have.
    """

    gpu: str
    memory: int
    bfloat16: bool
    online: bool
    cores: int


class Choice(NamedTuple):
    """A setting, its value in words, and why."""

    name: str
    value: Any
    reason: str

    @property
    def words(self) -> str:
        parts = self.value if isinstance(self.value, tuple) else (self.value,)
        return ' x '.join(map(str, parts)) or 'none'


class Settings(NamedTuple):
    """All that the config is written from.

    Attributes:
        task: of ``TASKS``.
        arch: of ``ARCHS``, with weights of V2.
        small: whether heads are narrow.
        scale: (width, height) that images are fitted into.
        crop: (height, width) of training samples; () for whole images,
            which detection only has.
        anchor: side of the smallest anchor in strides; detection only.
        most: objects that a picture is to hold; detection only.
        samples: boxes of an image that narrow heads learn from; detection.
        batch: images a step.
        length: iterations (segmentation) or epochs (detection).
        steps: iterations in all.
        weights: ``'v2_1k'``, ``'v2_fcmae'``, or empty for random ones.
        amp: whether to train in bfloat16.
        workers: processes that read images.
        reasons: of all of these, to be printed.
    """

    task: str
    arch: str
    small: bool
    scale: Tuple[int, int]
    crop: Tuple[int, ...]
    anchor: int
    most: int
    samples: int
    batch: int
    length: int
    steps: int
    weights: str
    amp: bool
    workers: int
    reasons: Tuple[Choice, ...]


def this_machine(online: bool) -> Machine:
    """Look at the GPU that torch sees, or at the memory of the machine."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name(0)
        half = torch.cuda.is_bf16_supported()
        return Machine(name, free, half, online, _cores())
    return Machine('', _free_memory(), False, online, _cores())


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_memory() -> int:
    """Return bytes that programs can have; half of all where none says."""
    try:
        rows = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
        words = next(r.split() for r in rows if r.startswith('MemAvailable'))
        return 1024 * int(words[1])
    except (OSError, StopIteration):
        total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        return total // 2


def choose_task(labels: Labels, summary: Summary, wish: str) -> Choice:
    """Choose what to learn: the wish, or the most that the labels hold.

    Raises:
        ValueError: for a wish that these labels cannot fulfil.
    """
    bare = summary.objects - summary.masks
    if labels.maps:
        if wish in ('det', 'boxes'):
            raise ValueError(
                f'--task {wish}: label maps do not separate objects of a '
                'class; pass --task seg, or give polygons or boxes'
            )
        return Choice('task', 'seg', 'the labels are label maps')
    if wish in ('seg', 'det') and bare:
        raise ValueError(
            f'--task {wish}: {bare} of {summary.objects} objects have a box '
            'and no outline; --task boxes'
        )
    if wish:
        return Choice('task', wish, f'--task {wish}')
    if bare:
        words = f'{bare} of {summary.objects} objects have no outline'
        return Choice('task', 'boxes', words)
    return Choice('task', 'det', 'all objects have an outline: masks too')


def choose(
    task: str,
    arch: str,
    summary: Summary,
    split: Split,
    machine: Machine,
    epochs: int = 0,
) -> Settings:
    """Choose everything else; see the reasons in the result.

    Args:
        task: of ``TASKS``.
        arch: of the backbone.
        summary: of the data.
        split: of its images.
        machine: to train on.
        epochs: the user's wish for the length, or 0.

    Raises:
        ValueError: for an arch that is not known.
    """
    get_arch(arch, version=2)
    gpu, count = bool(machine.gpu), len(split.train)
    small = not gpu or arch in SMALL_ARCHS
    scale, zoom = _scale(task, gpu, summary)
    crop = _crop(scale, gpu)
    if task != 'seg':
        crop = _part(scale.value, summary, gpu)
    anchor = _anchor(summary, zoom.value)
    pixels = math.prod(crop.value or scale.value)
    batch = _batch(task, arch, small, pixels, count, machine)
    length = _length(task, gpu, count, batch.value, epochs)
    most = _most(summary)
    seen = pixels / math.prod(scale.value)
    samples = _samples(summary, small, seen)
    weights = _weights(task, arch, machine)
    amp, heads = _precision(machine), _heads(small, arch, machine)
    workers = _workers(machine)
    own = [scale, crop] if task == 'seg' else [scale, crop, anchor, most, samples]
    return Settings(
        task,
        arch,
        small,
        scale.value,
        crop.value,
        anchor.value,
        most.value,
        samples.value,
        batch.value,
        length.value,
        length.value * (1 if task == 'seg' else count // batch.value or 1),
        weights.value,
        machine.bfloat16,
        workers.value,
        (*own, batch, length, weights, amp, workers, heads),
    )


def _precision(machine: Machine) -> Choice:
    words = machine.gpu or 'no GPU: half precision is slower on a CPU'
    number = 'bfloat16' if machine.bfloat16 else 'float32'
    return Choice('precision', number, words)


# Cores from which on a step on a CPU leaves some to other processes.
MANY_CORES = 8


def _workers(machine: Machine) -> Choice:
    """Let processes read images unless a step takes every core itself."""
    cores = f'{machine.cores} cores'
    if machine.gpu:
        return Choice('workers', min(4, machine.cores), cores)
    if machine.cores < MANY_CORES:
        words = f'a step on a CPU takes all {cores}'
        return Choice('workers', 0, words)
    return Choice('workers', 2, cores)


def _heads(small: bool, arch: str, machine: Machine) -> Choice:
    width = 'narrow' if small else 'of the recipes'
    return Choice('heads', width, f'{arch} on {machine.gpu or "no GPU"}')


def _scale(task: str, gpu: bool, summary: Summary) -> Tuple[Choice, Choice]:
    """Fit the median image into the limits; zoom in on small objects."""
    width, height = summary.size
    long, short = LIMITS['seg' if task == 'seg' else 'det', gpu]
    zoom = min(1.0, long / max(width, height), short / min(width, height))
    limit = f'at most {long} x {short} {"on a GPU" if gpu else "on a CPU"}'
    reason = f'the median image is {width} x {height}; {limit}'
    if task != 'seg' and summary.sides:
        side = float(np.percentile(summary.sides, 25)) * zoom
        if side < FINE:
            most = min(LARGEST_ZOOM, zoom * FINE / side)
            fits = min(long / max(width, height), short / min(width, height))
            zoom = max(zoom, min(most, fits))
            reason += f'; a quarter of the objects is below {side:.0f} px'
    value = (round(width * zoom), round(height * zoom))
    return Choice('scale', value, reason), Choice('zoom', zoom, '')


def _crop(scale: Tuple[int, int], gpu: bool) -> Choice:
    side = max(32, min(CROPS[gpu], min(scale.value)) // 32 * 32)
    reason = f'the short side is {min(scale.value)}, in steps of 32; '
    reason += f'at most {CROPS[gpu]} {"on a GPU" if gpu else "on a CPU"}'
    return Choice('crop', (side, side), reason)


# Objects of the median image from which on a CPU learns from a quarter of it.
MANY = 16


def _part(scale: Tuple[int, int], summary: Summary, gpu: bool) -> Choice:
    """Let a CPU learn from a part of an image where it has objects enough."""
    objects = int(np.median(summary.per_image or [0]))
    reason = f'the median image has {objects} objects'
    if gpu or objects < MANY:
        return Choice('crop', (), f'whole images: {reason}')
    sides = tuple(max(32, side // 2 // 32 * 32) for side in scale[::-1])
    return Choice('crop', sides, f'{reason}, a quarter of it enough')


def _anchor(summary: Summary, zoom: float) -> Choice:
    """Let the smallest anchors be no larger than the median object."""
    if not summary.sides:
        return Choice('anchor', 8, '')
    side = float(np.median(summary.sides)) * zoom
    fits = [scale for scale in (8, 4, 2) if STRIDE * scale <= side]
    value = fits[0] if fits else 2
    reason = (
        f'smallest anchors of {STRIDE * value} px for a median object of '
        f'{side:.0f} px after scaling'
    )
    return Choice('anchor', value, reason)


# Detections an image may have: COCO's evaluation counts no more than 100, and
# each passes the mask head.
DETECTIONS = 100
FEWEST = 20


def _most(summary: Summary) -> Choice:
    """Leave room for four times the objects of the fullest image.

    Twice as many have to do where these are more than COCO counts.
    """
    most = max(summary.per_image, default=0)
    value = min(DETECTIONS, max(FEWEST, 4 * most))
    if 2 * most > DETECTIONS:
        value = -(-2 * most // 50) * 50
    return Choice(
        'detections', value, f'at most; the fullest image has {most} objects'
    )


# Boxes an image that narrow heads learn from: the least, the most. A quarter
# are objects, which pass the mask head.
SAMPLES = (32, 128)


def _samples(summary: Summary, small: bool, seen: float) -> Choice:
    """Sample each object of a usual training image about twice.

    Args:
        summary: of the data.
        small: whether heads are narrow; the recipes' sample more.
        seen: share of an image that is in a training image.
    """
    if not small:
        return Choice('samples', 512, "the recipes'")
    objects = seen * float(np.median(summary.per_image or [0]))
    least, most = SAMPLES
    fits = (n for n in (least, 2 * least) if n >= 8 * objects)
    reason = f'boxes of a training image, which has about {objects:.0f} objects'
    return Choice('samples', next(fits, most), reason)


# Bytes a pixel of the image that a backbone keeps for the backward pass in
# float32, and its parameters in millions. Counted with
# torch.autograd.graph.saved_tensors_hooks in UPerNet with narrow heads at
# 2 x 256 x 256 on a CPU, torch 2.13, 2026-11-27 (tiny to large: with the
# recipes' heads, less what these keep; huge: by its channels).
MEMORY = dict(
    atto=(730, 3.4),
    femto=(778, 4.8),
    pico=(919, 8.6),
    nano=(1120, 15.0),
    tiny=(1544, 27.9),
    small=(2193, 49.6),
    base=(2806, 87.7),
    large=(4032, 196.4),
    huge=(7100, 657.5),
)
# The same of the heads beyond UPerNet's narrow ones, by kind and whether they
# are narrow; Mask R-CNN at 2 x 512 x 512.
HEADS = {
    ('seg', True): (0, 1.2),
    ('seg', False): (1471, 35.0),
    ('det', True): (-264, 1.2),
    ('det', False): (21, 19.8),
}
# Parameter, gradient and two moments of AdamW.
BYTES_PER_PARAMETER = 16
# Of the free memory; the rest is for workspaces and the data.
USABLE = 0.6
MOST = {
    ('seg', True): 16,
    ('seg', False): 4,
    ('det', True): 16,
    ('det', False): 2,
}


def _batch(
    task: str,
    arch: str,
    small: bool,
    pixels: int,
    count: int,
    machine: Machine,
) -> Choice:
    kind = 'seg' if task == 'seg' else 'det'
    saved, parameters = map(sum, zip(MEMORY[arch], HEADS[kind, small]))
    one = saved * pixels / (2 if machine.bfloat16 else 1)
    room = USABLE * machine.memory - BYTES_PER_PARAMETER * 1e6 * parameters
    most = MOST[kind, bool(machine.gpu)]
    # Batch norm on the 1 x 1 pool of UPerNet needs two images.
    least = 2 if kind == 'seg' else 1
    fits = max(least, int(room / one))
    wanted = min(most, fits, max(least, count // 4))
    value = 1 << (wanted.bit_length() - 1)
    reason = (
        f'{machine.memory / 2**30:.0f} GiB free, about {one / 2**30:.2f} GiB '
        f'an image; at most {most}, and a quarter of {count} images'
    )
    if room < least * one:
        reason += '. THIS MAY NOT FIT: take a smaller --arch'
    return Choice('batch', value, reason)


# Iterations (segmentation) and epochs (detection): the least, the most.
ITERATIONS = {True: (4000, 40000), False: (300, 2000)}
EPOCHS = {True: (36, 200), False: (3, 60)}
# Epochs of segmentation, and steps of detection, that lie between.
SEG_EPOCHS = {True: 100, False: 25}
DET_STEPS = {True: 10000, False: 3000}


def _length(
    task: str, gpu: bool, count: int, batch: int, epochs: int
) -> Choice:
    steps = max(1, count // batch)
    if epochs:
        value = epochs * steps if task == 'seg' else epochs
        words = f'--epochs {epochs}, {epochs * steps} steps'
        return Choice(
            'iterations' if task == 'seg' else 'epochs', value, words
        )
    where = 'on a GPU' if gpu else 'on a CPU'
    if task == 'seg':
        least, most = ITERATIONS[gpu]
        value = min(most, max(least, SEG_EPOCHS[gpu] * steps))
        reason = (
            f'{value / steps:.0f} epochs of {count} images; {SEG_EPOCHS[gpu]} '
            f'{where}, at least {least} and at most {most} iterations'
        )
        return Choice('iterations', value, reason)
    least, most = EPOCHS[gpu]
    value = min(most, max(least, round(DET_STEPS[gpu] / steps)))
    reason = (
        f'{value * steps} steps of {count} images; about {DET_STEPS[gpu]} '
        f'{where}, at least {least} and at most {most} epochs'
    )
    return Choice('epochs', value, reason)


# As the recipes: fine-tuned for segmentation, FCMAE for detection.
WEIGHTS = {'seg': 'v2_1k', 'det': 'v2_fcmae', 'boxes': 'v2_fcmae'}
UNPUBLISHED = ('small',)  # sizes whose weights V2 does not have


def _weights(task: str, arch: str, machine: Machine) -> Choice:
    if arch in UNPUBLISHED:
        return Choice('weights', '', f'random: V2 has none of size {arch}')
    if not machine.online:
        return Choice(
            'weights',
            '',
            'random: the published ones cannot be reached from here; with '
            'FCMAE on your own images first (configs/fcmae_*_own.py) it '
            'learns more',
        )
    kinds: Dict[str, str] = {
        'v2_1k': 'fine-tuned on ImageNet, as the ADE20K recipes',
        'v2_fcmae': 'pre-trained by FCMAE, as the COCO recipes',
    }
    return Choice('weights', WEIGHTS[task], kinds[WEIGHTS[task]])


def reason_lines(settings: Settings) -> List[str]:
    """Write a line for each setting."""
    return [f'{c.name}: {c.words} ({c.reason})' for c in settings.reasons]
