"""Damage checkpoint files and load them: refused whole, or read whole.

    python tests/campaigns/corruption.py --count 10000

Five kinds of files in turn: zip archives, the format before torch 1.6, the
file of a whole detector with its optimizer, safetensors and shards. A file is
cut, has bits flipped, a run of bytes zeroed, moved, doubled or lost. Right is
one CheckpointError and an untouched model; or every tensor loaded, with the
numbers of the file where its format has checksums. Anything else is wrong.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable, Dict

import campaign
import numpy as np
import torch
from checkpoints import randomise, same, snapshot, torch_bytes
from mmengine.logging import MMLogger
from safetensors.torch import save
from torch import nn

from mmconvnext import ConvNeXtV2
from mmconvnext.checkpoint import CheckpointError, load

# kB by which the process may grow, over files of some 60 kB.
MEMORY = 64 << 10


def tiny() -> nn.Module:
    arch = dict(depths=(1, 1, 1, 1), dims=(2, 2, 2, 2))
    return randomise(ConvNeXtV2(arch, out_indices=(0,)))


def zipped(state: dict) -> Dict[str, bytes]:
    return {'a.pth': torch_bytes({'state_dict': state, 'n': np.float64(1)})}


def legacy(state: dict) -> Dict[str, bytes]:
    raw = {'state_dict': state, 'n': np.float64(1)}
    return {'a.pth': torch_bytes(raw, _use_new_zipfile_serialization=False)}


def detector(state: dict) -> Dict[str, bytes]:
    whole = {f'backbone.{key}': value for key, value in state.items()}
    whole['neck.convs.0.weight'] = torch.ones(4, 2, 1, 1)
    moments = {
        n: dict(exp_avg=v.clone()) for n, v in enumerate(state.values())
    }
    raw = dict(
        state_dict=whole,
        meta=dict(epoch=1, CLASSES=('a',)),
        optimizer=dict(state=moments, param_groups=[dict(lr=0.1)]),
    )
    return {'a.pth': torch_bytes(raw)}


def single(state: dict) -> Dict[str, bytes]:
    return {'a.safetensors': save(state)}


def sharded(state: dict) -> Dict[str, bytes]:
    parts = {f'{n}.safetensors': {} for n in range(2)}
    for n, (key, value) in enumerate(state.items()):
        parts[f'{n % 2}.safetensors'][key] = value
    index = {key: name for name, part in parts.items() for key in part}
    files = {name: save(part) for name, part in parts.items()}
    text = json.dumps({'weight_map': index})
    return {'a.safetensors.index.json': text.encode(), **files}


KINDS: Dict[str, Callable[[dict], Dict[str, bytes]]] = {
    'zip': zipped,
    'legacy': legacy,
    'detector': detector,
    'safetensors': single,
    'sharded': sharded,
}
CHECKED = ('zip', 'detector')  # archives carry checksums


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def zero(data: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096))
    size = min(size, len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def move(data: bytes, rng: random.Random) -> bytes:
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def double(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:b] + data[a:b] + data[b:]


def lose(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:]


DAMAGES = (cut, flip, flip, zero, move, double, lose)


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def outcome(
    kind: str, folder: Path, first: str, target: nn.Module, clean: dict
) -> str:
    """Load a file into a model and say how that went."""
    before = snapshot(target)
    try:
        account = load(target, str(folder / first))
    except CheckpointError:
        whole = same(before, target.state_dict())
        return 'refused' if whole else 'WRONG: half loaded'
    except BaseException as error:
        return f'WRONG: {kind} {type(error).__name__}'
    if set(account.loaded) | set(account.absent) != set(before):
        return 'WRONG: tensors missing'
    if same(clean, target.state_dict()):
        return 'read, damage outside of the weights'
    return 'WRONG: other numbers' if kind in CHECKED else 'read, no checksum'


def main() -> None:
    args, rng = campaign.arguments(__doc__, 10_000)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('ERROR')
    source, target = tiny(), tiny()
    clean, fresh = snapshot(source), copy.deepcopy(target.state_dict())
    files = {kind: make(clean) for kind, make in KINDS.items()}
    figures: Counter = Counter()
    peak = peak_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(args.count):
            kind = tuple(KINDS)[n % len(KINDS)]
            names = list(files[kind])
            hit, damage = rng.choice(names), rng.choice(DAMAGES)
            for file, data in files[kind].items():
                content = damage(data, rng) if file == hit else data
                (folder / file).write_bytes(content)
            what = outcome(kind, folder, names[0], target, clean)
            if peak_memory() > peak + MEMORY:
                what, peak = f'WRONG: {kind} took memory', peak_memory()
            if what.startswith('WRONG'):
                print(f'case {n}: {kind}, {damage.__name__} of {hit}: {what}')
            figures[what] += 1
            target.load_state_dict(fresh)
    campaign.finish('corruption', args, figures)


if __name__ == '__main__':
    main()
