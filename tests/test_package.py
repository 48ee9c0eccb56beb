"""Which folder of the package may import which; what tests may spawn."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

PACKAGE = Path(__file__).parents[1] / 'mmconvnext'
GROUND = {'archs', 'configs', 'files', 'hub', 'mmcv_ops', 'ops'}
GROUND |= {'registry'}
MODELS = GROUND | {'checkpoint', 'models'}
# folder or module: those that it may import besides itself
MAY_IMPORT = {
    **dict.fromkeys(GROUND, set()),
    'hub': {'configs'},
    'checkpoint': GROUND,
    'models': GROUND | {'checkpoint'},
    'pretrain': MODELS | {'inference'},
    'adopt': MODELS,
    'deploy': MODELS,
    'inference': GROUND | {'checkpoint'},
    'training': GROUND,
    'data': GROUND,
    'analysis': MODELS,
    'cli': GROUND | {'checkpoint', 'data', 'training'},
    '__init__': {'public'},
    'public': MODELS | {'analysis', 'pretrain', 'training'},
}
# Rooms that import a host inside of functions.
MEET_HOSTS = ('adopt', 'data', 'deploy', 'inference')
FILES = sorted(PACKAGE.rglob('*.py'))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def room_of(parts: tuple) -> str:
    """Name the folder of the package, or the module at its root."""
    return parts[0].removesuffix('.py')


def imported(file: Path, late: bool = True) -> Iterator[tuple]:
    """Yield the absolute dotted names that a module imports, as parts.

    ``late``: inside of functions as well.
    """
    package = ('mmconvnext', *file.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(file.read_text(encoding='utf-8'))
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            yield from (tuple(a.name.split('.')) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level]
            base = base if node.level else ()
            base += tuple((node.module or '').split('.') * bool(node.module))
            yield from ((*base, alias.name) for alias in node.names)


@pytest.mark.parametrize('file', FILES, ids=name_of)
def test_imports_go_one_way(file: Path) -> None:
    room = room_of(file.relative_to(PACKAGE).parts)
    names = {parts[1] for parts in imported(file) if parts[0] == 'mmconvnext'}
    assert names & set(MAY_IMPORT) - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize('file', FILES, ids=name_of)
def test_hosts_and_triton_stay_outside(file: Path) -> None:
    room = room_of(file.relative_to(PACKAGE).parts)
    late = room not in MEET_HOSTS
    found = {parts[0] for parts in imported(file, late)}
    assert not found & {'mmdet', 'mmseg'}
    found = {parts[0] for parts in imported(file)}
    assert 'triton' not in found or file.name.startswith('triton_')


# What importing the package loads beyond what mmengine's runner has loaded.
LOADED = """
import sys
import mmengine.runner
before = set(sys.modules)
import mmconvnext
print(*(set(sys.modules) - before))
"""
LATE = (
    'inference',
    'adopt',
    'deploy',
    'data',
    'analysis.plots',
    'analysis.report',
)
LATE += ('analysis.features', 'analysis.complexity', 'checkpoint.parity')


def test_import_loads_no_library_and_no_drawing() -> None:
    done = subprocess.run(
        [sys.executable, '-c', LOADED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    libraries = {name.split('.')[0] for name in loaded}
    # torch and its parts load more of themselves as they are used.
    own = {'mmconvnext', 'torch', 'mmengine', *sys.stdlib_module_names}
    assert libraries - own == set()
    late = {f'mmconvnext.{name}' for name in LATE}
    assert not loaded & late


ROOT = PACKAGE.parent
SHIPPED = [*FILES, *(ROOT / 'tools').rglob('*.py'), ROOT / 'setup.py']


def opened(file: Path) -> Iterator[ast.Call]:
    """Yield the calls that open a text file."""
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        method = getattr(node.func, 'attr', '')
        if method in ('read_text', 'write_text'):
            # The encoding is their first or second argument.
            if len(node.args) <= (method == 'write_text'):
                yield node
        elif 'open' in (method, getattr(node.func, 'id', '')):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            owner = getattr(getattr(node.func, 'value', None), 'id', 'path')
            if owner not in ('Image', 'os') and not any(
                isinstance(text, str) and 'b' in text for text in texts
            ):
                yield node


@pytest.mark.parametrize('file', SHIPPED, ids=lambda path: path.name)
def test_text_is_utf8_whatever_the_locale(file: Path) -> None:
    """Paths and class names beyond ASCII meet LC_ALL=POSIX."""
    for call in opened(file):
        assert 'encoding' in {word.arg for word in call.keywords}, (
            f'{file}:{call.lineno}: no encoding'
        )


@pytest.mark.parametrize(
    'code',
    ['import mmconvnext.deploy', 'from mmconvnext import deploy, files'],
)
def test_running_files_loads_no_torch(code: str) -> None:
    """Exported files run where there is none."""
    code += (
        '\nimport sys\n'
        'heavy = {"torch", "mmengine", "mmcv", "mmdet", "mmseg"}\n'
        'print(heavy & {name.split(".")[0] for name in sys.modules})\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout.strip() == 'set()', done.stderr


def test_with_mmengine_importing_the_package_registers_its_types() -> None:
    code = (
        'import mmengine, mmconvnext, sys\n'
        'registry = sys.modules["mmconvnext.registry"]\n'
        'print(*registry.MODELS.module_dict)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert {'ConvNeXt', 'ConvNeXtV2', 'FCMAE'} <= set(done.stdout.split())


def test_public_names_are_there() -> None:
    import mmconvnext
    from mmconvnext import public

    assert mmconvnext.__all__ == public.__all__
    for name in mmconvnext.__all__:
        assert getattr(mmconvnext, name) is getattr(public, name)
    assert set(mmconvnext.__all__) <= set(dir(mmconvnext))
    assert mmconvnext.training.optim.__name__ == 'mmconvnext.training.optim'
    with pytest.raises(AttributeError, match='no attribute .nothing'):
        mmconvnext.nothing  # noqa: B018


def spawned(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            if called in ('spawn', 'run_ranks'):
                yield getattr(node.args[0], 'id', '')


def test_spawned_functions_are_found_in_every_environment() -> None:
    """mmsegmentation 1.2.2 installs a package ``tests`` of its own.

    A spawned process would look into it for a function of tests/FOLDER.
    """
    found = 0
    for file in Path(__file__).parent.glob('*/**/*.py'):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        own = {node.name for node in tree.body if hasattr(node, 'name')}
        for name in spawned(file):
            found += 1
            assert name not in own, f'{file}: move {name} beside the helpers'
    assert found
