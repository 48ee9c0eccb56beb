"""Load any published ConvNeXt checkpoint, whole or not at all.

A state dict goes through four steps: find the backbone in it, rename its
keys by the row of ``formats.FORMATS``, check every name and shape (these
three in ``detect``), fit it to a model (``convert``). An :class:`Account`
says what happened to each key. Files are read by ``weights_io``.
"""

from .convert import Account, convert, find_beside, licence_of
from .detect import Found, detect, is_plain
from .engine import PublishedHook, install_safe_loading, resolve_init_cfg
from .export import export, export_detector, export_with_account
from .formats import EXPORTS, FORMATS
from .heads import find_classifier
from .load import build, load
from .resuming import install_whole_writing, resolve_resume
from .sources import CheckpointError, Source
from .weights_io import read

__all__ = [
    'Account',
    'CheckpointError',
    'EXPORTS',
    'FORMATS',
    'Found',
    'PublishedHook',
    'Source',
    'build',
    'convert',
    'detect',
    'export',
    'export_detector',
    'export_with_account',
    'find_beside',
    'find_classifier',
    'install_safe_loading',
    'install_whole_writing',
    'is_plain',
    'licence_of',
    'load',
    'read',
    'resolve_init_cfg',
    'resolve_resume',
]
