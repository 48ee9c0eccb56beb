"""What is wrong with data: one finding a fault, with its file and its fix."""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Sequence

# Errors stop a run; warnings are said; notes name what was not looked at.
SEVERITIES = ('error', 'warning', 'note')
EXAMPLES = 3


class Finding(NamedTuple):
    """One fault of the data, or of a config that reads it.

    Attributes:
        severity: a row of ``SEVERITIES``.
        file: where it is; a file, a folder, or the config.
        found: what is there.
        expected: what should be.
        fix: what to do about it.
    """

    severity: str
    file: str
    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return (
            f'{self.severity}: {self.file}: found {self.found}; '
            f'expected {self.expected}; fix: {self.fix}'
        )


class DataError(ValueError):
    """Data that a run cannot use; the findings are its text."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        lines = [str(finding) for finding in findings]
        super().__init__('\n'.join([_count(findings), *lines]))


def _count(findings: Sequence[Finding]) -> str:
    number = len(findings)
    return f'the data has {number} fault{"s" * (number > 1)}'


def errors(findings: Iterable[Finding]) -> List[Finding]:
    return [each for each in findings if each.severity == 'error']


def ordered(findings: Iterable[Finding]) -> List[Finding]:
    """Drop what is said twice; errors first, each severity as it was found.

    Validation and test data are often one data set.
    """
    rank = SEVERITIES.index
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: rank(finding.severity))


def some(values: Sequence, limit: int = EXAMPLES) -> str:
    """List the first values, and how many more there are."""
    rest = len(values) - limit
    words = ', '.join(map(str, values[:limit]))
    return f'{words} and {rest} more' if rest > 0 else words
