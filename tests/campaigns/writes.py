"""Let the writing of checkpoints fail at any byte, and resume.

    python tests/campaigns/writes.py --count 200

A small model is trained over six checkpoints in a child process. At one of
them, drawn at random, the system ends the writing after a number of bytes
drawn at random, of the checkpoint or of ``last_checkpoint``: with an error,
as a full disk does, or by killing the process. The run is resumed. Right is
that it goes on from the last whole checkpoint, or says that there is none,
and ends with the weights of the uninterrupted run.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import campaign
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner import runner as runner_module
from torch import nn

from mmconvnext import checkpoint
from mmconvnext.checkpoint import resuming

STEPS, SIZE = 6, 2048  # checkpoints of some 20 kB
PARTS = ('checkpoint', 'pointer')


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE))

    def forward(self, inputs: Any, mode: str = 'loss') -> dict:
        x = torch.stack(inputs)
        return dict(loss=(self.weight - x).square().mean())


class Data(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(SIZE, generator=generator))


class Failure(Hook):
    """Limit what a file can hold, from one step's checkpoint on."""

    priority = 'VERY_HIGH'

    def __init__(self, step: int, part: str, byte: int, kill: bool) -> None:
        self.step, self.part, self.byte, self.kill = step, part, byte, kill

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner.iter + 1 != self.step:
            return
        if self.part == 'checkpoint':
            self.limit()
            return
        put = resuming.WholeFiles.put

        def put_and_limit(*args: Any) -> None:
            put(*args)
            self.limit()

        resuming.WholeFiles.put = put_and_limit

    def limit(self) -> None:
        # Python ignores the signal, and an error is raised instead.
        action = signal.SIG_DFL if self.kill else signal.SIG_IGN
        signal.signal(signal.SIGXFSZ, action)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.byte, hard))


def train(work_dir: Path, keep: int, failure: Optional[Failure]) -> None:
    """Train to the end, or to the failure; in a child process."""
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(work_dir)))
    checkpoint.install_whole_writing()
    checkpoint.install_safe_loading()
    checkpoint.resolve_resume(cfg)
    saving = dict(type='CheckpointHook', interval=1, by_epoch=False)
    Runner(
        Model(),
        cfg.work_dir,
        train_dataloader=dict(
            dataset=Data(),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=100.0, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(**saving, max_keep_ckpts=keep), logger=None
        ),
        custom_hooks=[] if failure is None else [failure],
        resume=cfg.resume,
        load_from=cfg.load_from,
        experiment_name=f'run{os.getpid()}',
        log_level='ERROR',
    ).train()


def child(*args: Any) -> int:
    """Run :func:`train` in a copy of this process; return its exit status."""
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, 'w', encoding='utf-8') as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        with contextlib.suppress(Exception):
            train(*args)
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def weights(work_dir: Path) -> torch.Tensor:
    raw = checkpoint.read(work_dir / f'iter_{STEPS}.pth')
    return raw['state_dict']['weight']


def case(folder: Path, rng: random.Random, expected: torch.Tensor) -> str:
    """Draw a failure, let it happen, resume; say how that went."""
    size = (folder / 'whole' / f'iter_{STEPS}.pth').stat().st_size
    step, part = rng.randint(1, STEPS), rng.choice(PARTS)
    kill, keep = rng.random() < 0.5, rng.choice((1, 2, -1))
    text = len(str(folder / 'run' / f'iter_{step}.pth'))
    byte = rng.randrange(size if part == 'checkpoint' else text)
    run = folder / 'run'
    how = f'{part} of step {step}, byte {byte}, kill={kill}, keep={keep}'
    status = child(run, keep, Failure(step, part, byte, kill))
    if status == 0:
        return f'WRONG: the writing did not fail: {how}'
    try:
        found, why = resuming.latest_whole(run)
    except checkpoint.CheckpointError as error:
        return f'WRONG: nothing whole ({error}): {how}'
    reached = step if part == 'pointer' else step - 1
    # The pointer may still name the one before.
    least = max(reached - 1, 0) if part == 'pointer' else reached
    number = int(found.stem.partition('_')[2]) if found else 0
    if number < least or (number == 0) != ('beginning' in why):
        return f'WRONG: resumes from {number}: {how}'
    if child(run, keep, None) != 0 or not torch.equal(weights(run), expected):
        return f'WRONG: another end: {how}'
    return f'{"killed" if kill else "full disk"} in the {part}, same end'


def main() -> None:
    args, rng = campaign.arguments(__doc__, 200)
    torch.set_num_threads(1)
    # Seconds of each run otherwise: it asks compilers for their versions.
    environment = runner_module.collect_env()
    runner_module.collect_env = lambda: environment
    MMLogger.get_current_instance().setLevel('ERROR')
    figures: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        # Here once, or each child imports what a run imports.
        train(Path(name) / 'imports', 1, None)
        whole = Path(name) / 'whole'
        if child(whole, -1, None) != 0:
            sys.exit('the uninterrupted run failed')
        for n in range(args.count):
            os.system(f'rm -rf {name}/run')
            what = case(Path(name), rng, weights(whole))
            if what.startswith('WRONG'):
                print(f'case {n}: {what}')
            figures[what.partition(':')[0] or what] += 1
    campaign.finish('writes', args, figures)


if __name__ == '__main__':
    main()
