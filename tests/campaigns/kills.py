"""Kill a run at random moments, resume it, and compare the end.

    python tests/campaigns/kills.py --what training --count 20
    python tests/campaigns/kills.py --what pretraining --count 20
    python tests/campaigns/kills.py --what conversion --count 20

Each case kills a fresh run and its data workers (signal 9) after a time drawn
between nothing and what the uninterrupted run takes, and starts it again
until it ends. Right is the same end: every tensor of the last checkpoint, and
for a conversion a file that is absent or whole at each moment.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Dict, List

import campaign
import torch

from mmconvnext import checkpoint

ROOT = campaign.ROOT
TIMEOUT = 1800
# name: config, options, and the last checkpoint of a run.
RUNS = {
    'training': (
        'configs/upernet_convnextv2_atto_demo.py',
        (
            'train_cfg.max_iters=24',
            'train_cfg.val_interval=8',
            'param_scheduler.0.end=2',
            'param_scheduler.1.begin=2',
            'param_scheduler.1.end=24',
            'default_hooks.checkpoint.interval=2',
            'train_dataloader.batch_size=2',
        ),
        'iter_24.pth',
    ),
    'pretraining': (
        'configs/fcmae_convnextv2_atto_camvid.py',
        (
            'train_cfg.max_epochs=24',
            'train_dataloader.batch_size=2',
            'default_hooks.checkpoint.interval=1',
            'model.decoder_dim=64',
            'train_dataloader.dataset.pipeline.1.scale=64',
        ),
        'epoch_24.pth',
    ),
}


def train_command(what: str, folder: Path, work_dir: Path) -> List[str]:
    config, options, _ = RUNS[what]
    return [
        str(ROOT / 'tools/train.py'),
        str(ROOT / config),
        f'--data-root={folder / "demo/ade20k"}',
        f'--work-dir={work_dir}',
        '--resume',
        '--cfg-options',
        *options,
    ]


def convert_command(folder: Path, work_dir: Path) -> List[str]:
    work_dir.mkdir(parents=True, exist_ok=True)
    return [
        str(ROOT / 'tools/convert_checkpoint.py'),
        str(folder / 'source.pth'),
        str(work_dir / 'out.pth'),
        '--to=official',
    ]


def start(command: List[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        start_new_session=True,
    )


def to_the_end(command: List[str]) -> str:
    """Run a command; return its output.

    Raises:
        RuntimeError: when it fails.
    """
    process = start(command)
    out, _ = process.communicate(timeout=TIMEOUT)
    if process.returncode:
        raise RuntimeError(out[-2000:])
    return out


def killed_after(command: List[str], seconds: float) -> bool:
    """Kill a run with all that it started; False when it ended before."""
    process = start(command)
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def tensors(path: Path) -> Dict[str, torch.Tensor]:
    raw = checkpoint.read(path)
    return raw['state_dict' if 'state_dict' in raw else 'model']


def same(path: Path, other: Path) -> bool:
    found, expected = tensors(path), tensors(other)
    return found.keys() == expected.keys() and all(
        torch.equal(value, expected[key]) for key, value in found.items()
    )


class Campaign:
    """One kind of run: its command, its last file, its uninterrupted end."""

    def __init__(self, what: str, folder: Path) -> None:
        self.what, self.folder = what, folder
        self.last = RUNS[what][2] if what in RUNS else 'out.pth'
        self.whole = folder / 'whole'
        self.prepare()
        began = time.monotonic()
        to_the_end(self.command(self.whole))
        self.seconds = time.monotonic() - began

    def prepare(self) -> None:
        if self.what in RUNS:
            demo = str(self.folder / 'demo')
            script = str(ROOT / 'tools/make_demo_data.py')
            to_the_end([script, '--out', demo, '--train', '8', '--val', '2'])
            return
        from mmconvnext import ConvNeXtV2

        torch.manual_seed(0)
        torch.save(ConvNeXtV2('tiny').state_dict(), self.folder / 'source.pth')

    def command(self, work_dir: Path) -> List[str]:
        if self.what in RUNS:
            return train_command(self.what, self.folder, work_dir)
        return convert_command(self.folder, work_dir)

    def case(self, moment: float) -> str:
        """Kill a run at a moment (seconds), go on, and compare the end."""
        run = self.folder / 'run'
        shutil.rmtree(run, ignore_errors=True)
        if not killed_after(self.command(run), moment):
            return 'ended before the moment'
        half = run / self.last
        if (
            self.what not in RUNS
            and half.exists()
            and not same(half, self.whole / self.last)
        ):
            return f'WRONG: half a file after {moment:.1f} s'
        try:
            out = to_the_end(self.command(run))
        except RuntimeError as error:
            return f'WRONG: not resumed after {moment:.1f} s: {error}'
        if not same(run / self.last, self.whole / self.last):
            return f'WRONG: another end after {moment:.1f} s'
        began = 'starts at the beginning' in out
        if self.what in RUNS:
            return f'{"started anew" if began else "resumed"}, same end'
        return 'converted again, same file'


def main() -> None:
    args, rng = campaign.arguments(__doc__, 20, [*RUNS, 'conversion'])
    figures: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        runs = Campaign(args.what, Path(name))
        for n in range(args.count):
            found = runs.case(rng.uniform(0, runs.seconds))
            print(f'case {n}: {found}', flush=True)
            figures[found.partition(':')[0]] += 1
    campaign.finish(f'kills in {args.what}', args, figures)


if __name__ == '__main__':
    main()
