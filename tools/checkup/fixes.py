"""Versions that work together, and the commands that get them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]

# Versions seen working together; import names are the same in both lines.
LINES: Dict[str, Dict[str, Tuple[str, str]]] = {
    'onedl': {
        'mmengine': ('onedl-mmengine', '0.10.12'),
        'mmcv': ('onedl-mmcv', '2.3.6'),
        'mmdet': ('onedl-mmdetection', '3.5.1'),
        'mmseg': ('onedl-mmsegmentation', '1.4.2'),
    },
    'OpenMMLab': {
        'mmengine': ('mmengine', '0.10.7'),
        'mmcv': ('mmcv', '2.1.0'),
        'mmdet': ('mmdet', '3.3.0'),
        'mmseg': ('mmsegmentation', '1.2.2'),
    },
}
HOSTS = tuple(LINES['onedl'])
# The least that the hosts of the default line accept.
OLDEST_MMENGINE = (0, 8, 3)
# The table in README.md says the same.
OLDEST = {'python': (3, 10), 'torch': (2, 1), 'numpy': (1, 26)}
# The same code without compiled operators, of equal versions: what
# requirements/openmmlab.txt installs.
LITE = {'mmcv': 'mmcv-lite'}
# Other distributions that fill the same import folder.
RIVALS = {'mmcv': (LITE['mmcv'], 'mmcv-full')}
# Import names that differ from what pip calls them.
PIP_NAMES = {
    'PIL': 'pillow',
    'cv2': 'opencv-python',
    'faster_coco_eval': 'faster-coco-eval',
    'opencv': 'opencv-python',
    'pkg_resources': '"setuptools<81"',
    'skimage': 'scikit-image',
    'torch': 'torch==2.13.0',
    'yaml': 'PyYAML',
}
# A build that pip keeps or makes on its own may come without operators.
BUILD = 'pip install --no-build-isolation --no-cache-dir'


class Problem(NamedTuple):
    what: str
    fix: str


class Known(NamedTuple):
    """An error message that has a known cause and fix."""

    pattern: str
    what: str
    fix: str


KNOWN = (
    Known(
        r"No module named 'mmcv\._ext'",
        'mmcv is installed without its compiled operators, and nothing '
        'replaces them',
        '{rebuild_mmcv}',
    ),
    Known(
        r"No module named '(?P<module>\w+)'",
        '{module} is not installed',
        '{install}',
    ),
    Known(
        r"No module named '(?P<module>\w+)\.",
        'a part of {module} is missing',
        '{reinstall}',
    ),
    Known(
        r'operator torchvision::\w+ does not exist',
        'the compiled part of torchvision was made for another torch; the '
        'Runner imports torchvision where it is installed, and would stop. '
        'Nothing here needs it (else install the one made for this torch)',
        'pip uninstall -y torchvision',
    ),
    Known(
        r'MMCV==\S+ is used but incompatible',
        '{component} accepts only other versions of mmcv (mmdet 3.3.0 and '
        'mmsegmentation 1.2.2 want mmcv<2.2.0)',
        '{align}',
    ),
    Known(
        r'MMEngine==\S+ is used but incompatible',
        '{component} accepts only other versions of mmengine',
        '{align_mmengine}',
    ),
    Known(
        r'multiarray failed to import|_ARRAY_API not found'
        r'|dtype size changed|Numpy is not available'
        r'|compiled using NumPy 1',
        'a part of {component} was compiled for another major version of '
        'numpy (or install a {component} built for the numpy that is there)',
        'pip install "numpy<2"',
    ),
    Known(
        r'undefined symbol|DLL load failed|symbol not found',
        'the compiled part of {component} was made for other libraries, '
        'mostly another torch',
        '{reinstall}',
    ),
    Known(
        r'lib(GL|gthread|glib)\S*\.so',
        'this opencv needs system libraries of a desktop',
        'pip uninstall -y opencv-python && '
        'pip install --force-reinstall --no-deps opencv-python-headless',
    ),
    Known(
        r'No package metadata was found for',
        'a package is there without its metadata, so {component} cannot '
        'read its version',
        '{reinstall}',
    ),
)


def host_line() -> str:
    """Name the line most hosts are from; the default where none is."""
    counts = {
        line: sum(bool(installed_host(dist)) for dist, _ in hosts.values())
        for line, hosts in LINES.items()
    }
    return max(counts, key=lambda line: counts[line])


def installed(dist: str) -> str:
    """Read a distribution's version; empty where it is not installed."""
    # Slow to import, and most checks do without.
    from importlib import metadata

    try:
        return metadata.version(dist) or ''
    except Exception:  # metadata may itself be damaged
        return ''


def installed_host(dist: str) -> str:
    """Read a host's version, be it with compiled operators or without."""
    return installed(dist) or installed(LITE.get(dist, dist))


def install_command(name: str, command: str = 'pip install') -> str:
    """Write the command that installs a package by its import name."""
    if name == 'mmconvnext':
        return f'pip install --no-build-isolation -e {ROOT}'
    if name not in HOSTS:
        return f'{command} {PIP_NAMES.get(name, name)}'
    line = host_line()
    dist, version = LINES[line][name]
    if name != 'mmcv':
        return f'{command} {dist}=={version}'
    build = command.replace('pip install', BUILD)
    # Its setup.py uses pkg_resources, which setuptools has no longer.
    first = 'pip install "setuptools<81" && ' if line == 'OpenMMLab' else ''
    return f'{first}{build} {dist}=={version}'


def reinstall_command(name: str) -> str:
    return install_command(name, 'pip install --force-reinstall --no-deps')


def rebuild_command() -> str:
    """Write the command that compiles mmcv's operators."""
    lite = ''.join(
        f'pip uninstall -y {dist} && '
        for dist in LITE.values()
        if installed(dist)
    )
    return lite + reinstall_command('mmcv')


def align_command(component: str) -> str:
    """Bring a host and mmcv to one line: mmcv's, where that is tested."""
    for line in LINES.values():
        dist, version = line['mmcv']
        if component in line and installed_host(dist) == version:
            wanted, version = line[component]
            others = ' '.join(set(rivals(component)) - {wanted})
            return (
                f'pip uninstall -y {others} && '
                f'pip install --force-reinstall --no-deps {wanted}=={version}'
            )
    return reinstall_command('mmcv')


def rivals(host: str) -> Tuple[str, ...]:
    """Name the distributions that fill one host's import folder."""
    names = [line[host][0] for line in LINES.values()]
    return (*names, *RIVALS.get(host, ()))


def diagnose(component: str, error: str) -> Optional[Problem]:
    """Match an error with the known ones; None where it is not known."""
    for known in KNOWN:
        match = re.search(known.pattern, error)
        if match:
            # Operators are mmcv's, the scope is mmconvnext's.
            package = component.split()[0]
            module = match.groupdict().get('module') or package
            fields = dict(
                component=package,
                module=module,
                install=install_command(module),
                reinstall=reinstall_command(module),
                rebuild_mmcv=rebuild_command(),
                align=align_command(package),
                align_mmengine=reinstall_command('mmengine'),
            )
            return Problem(
                known.what.format(**fields), known.fix.format(**fields)
            )
    return None
