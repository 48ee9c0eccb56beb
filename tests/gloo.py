"""Run tools/train.py in CPU processes without randomness; log each loss.

python -m torch.distributed.run --nproc_per_node 2 tests/gloo.py CONFIG ...

mmengine's own launcher selects a GPU before anything else; it skips that step
if a process group exists already.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TASK_UTILS

from mmconvnext.cli import prepare_hosts

TRAIN = Path(__file__).parents[1] / 'tools' / 'train.py'


@HOOKS.register_module()
class LossFile(Hook):
    """Write this process's loss of each iteration, in full precision.

    mmengine logs the loss of the first process only.
    """

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        path = Path(runner.work_dir, f'losses_{rank}.jsonl')
        with path.open('a', encoding='utf-8') as file:
            row = {k: float(v) for k, v in outputs.items()}
            file.write(json.dumps({'iter': runner.iter, **row}) + '\n')


def register_sampler() -> None:
    """Take the first candidates instead of random ones."""
    prepare_hosts()
    from mmdet.models.task_modules import RandomSampler

    @TASK_UTILS.register_module(force=True)
    class FirstSampler(RandomSampler):
        def random_choice(self, gallery: torch.Tensor, num: int):
            return gallery[:num]


def main() -> None:
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        dist.init_process_group('gloo')
        sys.argv += ['--launcher', 'pytorch']
    if '--first-sampler' in sys.argv:
        sys.argv.remove('--first-sampler')
        register_sampler()
    sys.argv[0] = str(TRAIN)
    torch.set_num_threads(1)
    # As Python does for a script.
    sys.path.insert(0, str(TRAIN.parent))
    runpy.run_path(str(TRAIN), run_name='__main__')


if __name__ == '__main__':
    main()
