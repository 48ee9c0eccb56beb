"""What hosts print that nobody asked for, silenced where it comes from.

The whole log, with every line that the screen leaves out, is in the file of
the run. Errors, and warnings that are not in the tables here, are shown.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import warnings
from typing import Any, Callable, List, Type

import mmengine.logging
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.runner import checkpoint as engine

# Beginnings of warnings, each with the module that gives it.
WARNINGS = (
    # The painter, of a box or polygon that reaches over the border.
    (r'Warning: The \w+ is out of bounds', r'mmengine\.visualization'),
    # A metric that no config here uses.
    (r'faster_coco_eval is not installed', r'mmdet\.evaluation'),
    # A loss of MMSegmentation, whose default is its papers'.
    (r'Default ``avg_non_ignore`` is False', r'mmseg\.models\.losses'),
    (r'`reduce_zero_label` will be deprecated', r'mmseg\.datasets'),
    # A copy of masks in Cascade Mask R-CNN.
    (r'To copy construct from a tensor', r'mmdet\.models'),
    # Hooks that draw only where they are asked to.
    (r'The draw is False', r'mm(det|seg)\.engine\.hooks'),
)
# Parts of log records of warning level about the hosts' own internals.
RECORDS = (
    '"FileClient" will be deprecated',
    'is the alias of "LocalBackend"',
    'The prefix is not set in metric class',
    # mmengine, of every hook that draws while it tests
    '`test_evaluator` will be used',
)
# Modules that report their steps with print().
PRINTING = ('pycocotools.coco', 'pycocotools.cocoeval')


class ScreenHandler(logging.Handler):
    """Shows warnings and errors, one line each, without the noise.

    It prints to what ``sys.stdout`` is at the time: a moving line replaces
    it, to stay below everything else.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.addFilter(is_news)

    def emit(self, record: logging.LogRecord) -> None:
        text = f'{record.levelname.lower()}: {record.getMessage()}'
        print(text, file=sys.stdout, flush=True)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record is about this run rather than the hosts' internals."""
    text = record.getMessage()
    return not any(part in text for part in RECORDS)


def hush(logger: MMLogger) -> MMLogger:
    """Let a logger write everything to its file and news to the screen."""
    files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
    others = [h for h in logger.handlers if h not in files]
    # mmengine lets other ranks than the first show errors only.
    level = max([logging.WARNING, *(h.level for h in others)])
    logger.handlers[:] = [*files, ScreenHandler(level)]
    return logger


def silence() -> None:
    """Silence the hosts; call it before any of them is imported.

    Calling it again changes nothing.
    """
    for message, module in WARNINGS:
        warnings.filterwarnings('ignore', message, module=module)
    hush(MMLogger.get_instance('mmengine'))
    for module in (mmengine.logging, engine):
        if not hasattr(module.print_log, '__wrapped__'):
            module.print_log = _to_log(module.print_log)


def _to_log(print_log: Callable) -> Callable:
    """Let print_log without a logger write to the log of the run.

    mmengine then prints, whatever the level is: "Loads checkpoint by ...",
    and notices for developers of the hosts, "Could not import OneDL".
    """

    @functools.wraps(print_log)
    def run(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
        print_log(msg, 'current' if logger is None else logger, level)

    return run


def log_prints() -> None:
    """Send what pycocotools prints to the log of the run."""
    for name in PRINTING:
        importlib.import_module(name).__dict__['print'] = _log_print


def _log_print(*words: Any, **_: Any) -> None:
    MMLogger.get_current_instance().info(' '.join(map(str, words)))


def quiet_runner(kind: Type[Runner]) -> Type[Runner]:
    """Derive a runner whose log goes to its file.

    mmengine dumps environment and config while a runner is built, so the
    logger has to be changed the moment it is made.
    """

    class QuietRunner(kind):
        def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
            return hush(super().build_logger(*args, **kwargs))

    return QuietRunner


def files_of(logger: logging.Logger) -> List[str]:
    """List the files that a logger writes to."""
    return [
        handler.baseFilename
        for handler in logger.handlers
        if isinstance(handler, logging.FileHandler)
    ]
