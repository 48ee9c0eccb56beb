"""Evaluate a checkpoint: mIoU of a segmentor, box and mask AP of a detector.

python tools/test.py CONFIG CHECKPOINT [--tta] [--show-dir DIR] [--out PATH]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmconvnext import launch


def parse_args() -> argparse.Namespace:
    parser = launch.common_arguments('Test a model.')
    parser.add_argument('checkpoint', help='checkpoint file')
    launch.runner_arguments(parser)
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_pipeline",
    )
    parser.add_argument(
        '--out',
        metavar='FILE.pkl|FOLDER',
        help='write the predictions: a .pkl file, or a folder of label maps '
        '(segmentation)',
    )
    parser.add_argument(
        '--show-dir', help='folder for pictures of every prediction'
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def use_tta(cfg: Config) -> None:
    """Wrap the model and exchange the pipeline for the augmenting one."""
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError(
            f'--tta: {cfg.filename} has no tta_model and tta_pipeline'
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def write_predictions(cfg: Config, out: str) -> None:
    """Add what writes the predictions to the evaluator."""
    if out.endswith('.pkl'):
        evaluators = cfg.test_evaluator
        if not isinstance(evaluators, (list, tuple)):
            evaluators = [evaluators]
        dump = dict(type='DumpResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators, dump]
    elif cfg.default_scope == 'mmseg':
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
    else:
        raise ValueError(f'--out of a detector must end in .pkl, got {out}')


def write_pictures(cfg: Config, folder: str) -> None:
    """Draw every test image."""
    hook = cfg.default_hooks.visualization
    hook.update(draw=True, interval=1)
    if cfg.default_scope == 'mmdet':
        # joined to <work dir>/<time> by the hook unless it is absolute
        hook.test_out_dir = str(Path(folder).absolute())
    else:
        cfg.visualizer.save_dir = folder


def configure(args: argparse.Namespace) -> Config:
    """Turn the command line into a config that is ready to run."""
    cfg = launch.load_config(args)
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f'checkpoint not found: {args.checkpoint}')
    cfg.load_from = args.checkpoint
    if args.tta:
        use_tta(cfg)
    if args.out:
        write_predictions(cfg, args.out)
    if args.show_dir:
        write_pictures(cfg, args.show_dir)
    launch.check_data(cfg, ['test_dataloader'])
    return cfg


def main() -> None:
    args = parse_args()
    with launch.clear_errors():
        cfg = configure(args)
    metrics = launch.build_runner(cfg).test()
    for name, value in metrics.items():
        print(f'{name}: {value}')


if __name__ == '__main__':
    main()
