"""Install the package; the hosts come from requirements/ (see README)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list:
    lines = (HERE / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def version() -> str:
    text = (HERE / 'mmconvnext' / '__init__.py').read_text()
    return text.split("__version__ = '")[1].split("'")[0]


setup(
    name='mmconvnext',
    version=version(),
    description='ConvNeXt V1 and V2 for dense prediction with OpenMMLab',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmconvnext', 'mmconvnext.*']),
    python_requires='>=3.9',
    # mmengine, mmcv, mmdet and mmseg come as one of two sets of
    # distributions under the same import names: an extra each, no default.
    install_requires=['torch>=2.1', 'numpy'],
    extras_require={
        'hosts': requirements('runtime'),
        'tests': requirements('tests'),
    },
)
