"""What the READMEs name exists: tools, options, configs, paths, anchors."""

import functools
import importlib
import itertools
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest
from runs import ROOT, succeed
from tables import TABLES
from tiny import load

FOLDERS = ('configs', 'mmconvnext', 'tests', 'tools')
READMES = [ROOT / folder / 'README.md' for folder in ('.', *FOLDERS)]
READMES.append(ROOT / '.github' / 'CONTRIBUTING.md')
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
SPAN = re.compile(r'`([^`]+)`')
LINK = re.compile(r'\]\(([^)\s]+)\)')
ROOTS = '|'.join((*FOLDERS, 'requirements'))
PATH = re.compile(rf'(?<![\w/.-])(?:{ROOTS})/[\w./{{}},*-]+')
# The reader replaces these.
PLACEHOLDER = re.compile(r'\b(NAME|RECIPE|FOLDER|DIR|MODE)\b|<')
TOOL = re.compile(r'(?:python|bash) (tools/\w+\.(?:py|sh))')
OPTION = re.compile(r'--[a-z][\w-]*')


class Command(NamedTuple):
    """One command line that a README gives, on one line."""

    tool: str
    line: str


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(readme: Path) -> str:
    return readme.read_text(encoding='utf-8')


def prose(readme: Path) -> str:
    return BLOCK.sub('', text_of(readme))


def blocks(readme: Path, language: str) -> List[str]:
    found = BLOCK.findall(text_of(readme))
    return [body for kind, body in found if kind == language]


def lines(readme: Path) -> Iterator[str]:
    """Yield the command lines of blocks, and the code inside sentences."""
    for body in blocks(readme, 'bash'):
        body = re.sub(r'\\\n\s*', ' ', body)
        yield from (re.sub(r'\s+#.*', '', x) for x in body.split('\n'))
    yield from (' '.join(span.split()) for span in SPAN.findall(prose(readme)))


def commands(readme: Path) -> List[Command]:
    return [
        Command(match[1], line[match.start() :])
        for line in lines(readme)
        for match in TOOL.finditer(line)
    ]


COMMANDS = sorted({c for readme in READMES for c in commands(readme)})


@functools.cache
def help_of(tool: str) -> str:
    if tool.endswith('.sh'):
        text = (ROOT / tool).read_text(encoding='utf-8')
        # These pass other options to train.py.
        if tool.endswith('_train.sh'):
            text += help_of('tools/train.py')
        return text
    return succeed(tool, '--help')


def options(text: str) -> set:
    return set(OPTION.findall(text))


def expand(pattern: str) -> List[str]:
    """Expand the braces of a path, as a shell does."""
    parts = re.split(r'\{([^}]*)\}', pattern)
    choices = [p.split(',') if i % 2 else [p] for i, p in enumerate(parts)]
    return [''.join(choice) for choice in itertools.product(*choices)]


def test_the_first_readme_is_short() -> None:
    assert len(text_of(ROOT / 'README.md').splitlines()) <= 200


@pytest.mark.parametrize('name', TABLES)
def test_tables_are_those_of_their_sources(name: str) -> None:
    table = TABLES[name]
    assert table.current() == table.text(), 'run: python tests/tables.py'


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 30
    named = {c.tool for c in COMMANDS}
    assert named >= {'tools/train.py', 'tools/test.py', 'tools/doctor.py'}


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: c.line)
def test_a_command_names_what_exists(command: Command) -> None:
    assert (ROOT / command.tool).is_file()
    assert options(command.line) <= options(help_of(command.tool))


@pytest.mark.parametrize(
    'command',
    [c for c in COMMANDS if c.tool == 'tools/benchmark.py'],
    ids=lambda c: c.line,
)
def test_a_benchmark_has_the_mode(command: Command) -> None:
    modes = re.search(r'\{(backbone,[^}]*)\}', help_of(command.tool))[1]
    mode = shlex.split(command.line)[2:3]
    assert not mode or mode[0] in (*modes.split(','), 'MODE')


def test_the_layout_is_that_of_the_package() -> None:
    package = ROOT / 'mmconvnext'
    (layout,) = re.findall(r'```\n(__init__.*?)```', text_of(READMES[2]), re.S)
    rows = re.findall(r'^(\S+)((?:.*\n)(?:  .*\n)*)', layout, re.M)
    found = {p.name + '/' * p.is_dir() for p in package.iterdir()}
    hidden = ('README.md', 'py.typed', '__pycache__/', '.mim/')
    assert [name for name, _ in rows] == list(dict(rows))
    assert set(dict(rows)) == found - set(hidden)
    for name, text in rows:
        for file in re.findall(r'\w+\.py', text):
            assert (package / name / file).is_file(), file


def test_every_benchmark_is_in_the_table() -> None:
    modes = re.search(r'\{(backbone,[^}]*)\}', help_of('tools/benchmark.py'))[
        1
    ]
    text = text_of(ROOT / 'tools' / 'README.md')
    table = re.search(r'\| mode \|.*?\n\n', text, re.S)[0]
    assert set(modes.split(',')) <= set(SPAN.findall(table))


def test_every_tool_is_in_the_table() -> None:
    found = {p.name for p in (ROOT / 'tools').glob('*.*') if p.suffix != '.md'}
    text = text_of(ROOT / 'tools' / 'README.md')
    table = re.search(r'\| tool \|.*?\n\n', text, re.S)[0]
    named = re.findall(r'`(\w+\.(?:py|sh))`', table)
    assert set(named) == found - {'arguments.py', 'setup_env.sh'}


def option_rows() -> Iterator[tuple]:
    """Yield option and tools of the table of options."""
    text = text_of(ROOT / 'tools' / 'README.md')
    table = re.search(r'\| option \| tools \|.*?\n\n', text, re.S)[0]
    tools = []
    for row in table.strip().split('\n')[2:]:
        cells = re.split(r'(?<!\\)\|', row)
        here = [t.strip() for t in cells[2].split(',')]
        tools = [*tools, *here[1:]] if here[0] == 'the same' else here
        for option in OPTION.findall(cells[1]):
            yield from ((option, tool) for tool in tools)


@pytest.mark.parametrize(('option', 'tool'), list(option_rows()))
def test_the_table_of_options(option: str, tool: str) -> None:
    assert option in options(help_of(f'tools/{tool}.py'))


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_paths_exist(readme: Path) -> None:
    found = {
        path.rstrip('.,:')
        for line in lines(readme)
        for path in PATH.findall(line)
        if not PLACEHOLDER.search(path)
    }
    missing = [
        path
        for pattern in found
        for path in expand(pattern)
        if not list(ROOT.glob(path))
    ]
    assert not missing


SETTING = re.compile(r'(?<![\w./-])([a-z_]+(?:\.\w+)+)=')
# Between them these have every kind of setting that a README names.
CONFIGS = [
    f'{name}.py'
    for name in (
        'upernet_convnextv2_atto_camvid',
        'fcmae_convnextv2_atto_camvid',
        'finetune_convnextv2_tiny_own',
        'mask_rcnn_convnextv2_tiny_own',
    )
]
# Options that no config repeats with their default.
ADDED = {'model.backbone.with_cp', 'optim_wrapper.accumulative_counts'}


def has(cfg: object, parts: List[str]) -> bool:
    """Whether the config has a value at this path of keys and indices."""
    for part in parts:
        try:
            cfg = cfg[int(part)] if part.isdigit() else cfg[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_settings_exist(readme: Path) -> None:
    found = {key for line in lines(readme) for key in SETTING.findall(line)}
    configs = [load(name) for name in CONFIGS]
    missing = [
        key
        for key in found - ADDED
        if not any(has(cfg, key.split('.')) for cfg in configs)
    ]
    assert not missing


def anchors(readme: Path) -> set:
    """Name the headings as GitHub does."""
    heads = re.findall(r'^#+ (.*)$', prose(readme), re.M)
    clean = (re.sub(r'[^\w\- ]', '', head.lower()) for head in heads)
    return {head.replace(' ', '-') for head in clean}


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_links_lead_somewhere(readme: Path) -> None:
    for link in LINK.findall(prose(readme)):
        if link.startswith('http'):
            continue
        path, _, anchor = link.partition('#')
        target = (readme.parent / path).resolve() if path else readme
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_nothing_is_said_twice(readme: Path) -> None:
    parts = prose(readme).split('\n\n')
    counts = Counter(part.strip() for part in parts)
    assert [part for part, n in counts.items() if part and n > 1] == []


def names(readme: Path) -> set:
    return {
        name
        for span in SPAN.findall(prose(readme))
        for name in re.findall(r'\bmmconvnext(?:\.\w+)+', span)
    }


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_public_names_exist(readme: Path) -> None:
    for name in names(readme):
        parts = name.split('.')
        for i in range(len(parts) - 1, 0, -1):
            try:
                thing = importlib.import_module('.'.join(parts[:i]))
            except ImportError:
                continue
            functools.reduce(getattr, parts[i:], thing)
            break


def test_the_first_program_prints_what_it_says(capsys) -> None:
    text = text_of(ROOT / 'README.md')
    program, printed = re.search(
        r'^```python\n(.*?)^```\n\n^```\n(.*?)^```$', text, re.M | re.S
    ).groups()
    exec(compile(program, 'README.md', 'exec'), {})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize('readme', READMES, ids=name_of)
def test_python_in_readmes_is_python(readme: Path) -> None:
    for body in blocks(readme, 'python'):
        compile(body, name_of(readme), 'exec')
