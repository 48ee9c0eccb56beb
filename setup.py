"""Install the package; the hosts come from requirements/ (see README)."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
# What MIM looks for in <package>/.mim.
INDEX = ('configs', 'tools', 'model-index.yml')


def requirements(name: str) -> list:
    lines = (
        (HERE / 'requirements' / f'{name}.txt')
        .read_text(encoding='utf-8')
        .splitlines()
    )
    return [line for line in lines if line and not line.startswith('#')]


def version() -> str:
    text = (HERE / 'mmconvnext' / '__init__.py').read_text(encoding='utf-8')
    return text.split("__version__ = '")[1].split("'")[0]


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(os.path.relpath(source, target.parent))


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
    else:
        shutil.copy(source, target)


class BuildWithIndex(build_py):
    """Put configs, tools and the model index beside the modules.

    Copies in a wheel, links in the source tree of an editable install.
    """

    def run(self) -> None:
        super().run()
        put = link if self.editable_mode else copy
        root = HERE if self.editable_mode else Path(self.build_lib)
        for name in INDEX:
            put(HERE / name, root / 'mmconvnext' / '.mim' / name)


class SourceWithIndex(sdist):
    """Add what setup.py reads, and the index, to a source archive."""

    def make_release_tree(self, base_dir: str, files: list) -> None:
        super().make_release_tree(base_dir, files)
        for name in ('requirements', *INDEX):
            copy(HERE / name, Path(base_dir, name))


setup(
    name='mmconvnext',
    version=version(),
    description='ConvNeXt V1 and V2 for dense prediction with OpenMMLab',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmconvnext', 'mmconvnext.*']),
    cmdclass=dict(build_py=BuildWithIndex, sdist=SourceWithIndex),
    # What the tests run on; the table in README.md says it too.
    python_requires='>=3.10',
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
    ],
    package_data={'mmconvnext': ['py.typed']},
    # mmengine, mmcv, mmdet and mmseg come as one of two sets of
    # distributions under the same import names: an extra each, no default.
    install_requires=['torch>=2.1', 'numpy>=1.26'],
    extras_require={
        'hosts': requirements('runtime'),
        'tests': requirements('tests'),
    },
)
