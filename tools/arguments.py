"""Options that several tools have; importing this loads no other library.

Tools parse the command line before they import torch, so that --help and a
wrong option answer at once.
"""

from __future__ import annotations

import argparse
import os

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def setting(text: str) -> str:
    """Check that an option of the config has the form KEY=VALUE."""
    if not text.partition('=')[1] or text.startswith('='):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not of the form KEY=VALUE'
        )
    return text


def options_of_config(parser: argparse.ArgumentParser) -> None:
    """Add --cfg-options; :func:`mmconvnext.cli.settings` reads its values."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        type=setting,
        default=[],
        metavar='KEY=VALUE',
        help='override settings of the config: optim_wrapper.optimizer.lr='
        '2e-4 model.backbone.with_cp=True; lists as key="[a,b]"',
    )


def with_config(description: str) -> argparse.ArgumentParser:
    """Start a parser of a tool that takes one config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    data_root(parser)
    options_of_config(parser)
    return parser


def with_model(description: str) -> argparse.ArgumentParser:
    """Start a parser of a tool that takes a config and a trained model.

    An exported model brings its config. Parse with
    ``parse_intermixed_args``: it looks at all positions at once.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config',
        nargs='?',
        help='config file; an exported model (.onnx) needs none',
    )
    parser.add_argument(
        'checkpoint', help='checkpoint file, or exported model (.onnx)'
    )
    data_root(parser)
    options_of_config(parser)
    return parser


def data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--data-root',
        help="folder of the data set, instead of the config's data_root",
    )


def of_exported(parser: argparse.ArgumentParser, device: bool = False) -> None:
    """Add the options of an exported model; see mmconvnext.deploy.load.

    Args:
        parser: of a tool that takes a model.
        device: whether the tool lets the runner choose it for a checkpoint,
            so that it is asked for exported models alone.
    """
    parser.add_argument(
        '--runtime',
        choices=['onnxruntime', 'openvino'],
        help='that runs an exported model (default: onnxruntime)',
    )
    parser.add_argument(
        '--precision',
        help='in which openvino computes: fp32 (default) or bf16',
    )
    names = ('runtime', 'precision')
    if device:
        names += ('device',)
        parser.add_argument(
            '--device',
            help='on which an exported model computes: cpu (default), cuda '
            'or tensorrt; gpu with openvino',
        )
    parser.set_defaults(of_exported=names)


def runs_file(args: argparse.Namespace) -> bool:
    """Whether the model is an exported one; refuse its options otherwise."""
    from mmconvnext.deploy.hosts import is_exported

    exported = is_exported(args.checkpoint)
    if not exported:
        for name in args.of_exported:
            if getattr(args, name) is not None:
                raise ValueError(
                    f'--{name} is for exported models (.onnx), got '
                    f'{args.checkpoint}'
                )
    return exported


def of_runner(parser: argparse.ArgumentParser) -> None:
    """Add the options of the tools that build a runner."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints (default: work_dirs/<config>)',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='job launcher of a distributed run',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='print the whole log, with environment and config; by default '
        'it is in the work dir alone',
    )
    # torchrun's predecessor passes this one; torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def set_local_rank(args: argparse.Namespace) -> None:
    """Give the runner the rank that an old launcher passed as an option."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--device', help='to compute on (default: cuda if there is a GPU)'
    )
