"""The confusion matrix as HTML, read back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmconvnext.inference.confusion import (
    MANY,
    PAIRS,
    most_confused,
    section,
)


def cells(text: str) -> list:
    """Return the text of each cell, a list for each row of the body."""
    body = text.split('<tbody>')[1]
    return [
        re.findall(r'<t[hd][^>]*>([^<]*)</t[hd]>', row)
        for row in body.split('</tr>')[:-1]
    ]


def test_a_matrix_has_counts_and_recall() -> None:
    counts = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]])
    rows = cells(section(counts, ['ant', 'b<e>e', 'cow']))
    assert rows == [
        ['ant', '3', '1', '', '4', '75.0'],
        ['b&lt;e&gt;e', '', '2', '2', '4', '50.0'],
        ['cow', '', '', '', '0', '–'],
    ]


def test_cells_are_shaded_by_their_share() -> None:
    text = section(np.array([[8, 2], [0, 5]]), ['a', 'b'])
    shades = re.findall(r'rgba\(([\d, ]+), ([\d.]+)\)', text)
    right, wrong = '0, 114, 178', '213, 94, 0'
    assert shades == [
        *((right, '0.65'), (wrong, '0.20')),
        *((wrong, '0.00'), (right, '0.80')),
    ]
    assert 'a taken for b: 2 of 10' in text


@pytest.mark.parametrize('classes', [2, MANY, MANY + 1, 1000])
def test_any_number_of_classes(classes: int) -> None:
    counts = np.eye(classes, dtype=int) * 7
    counts[0, 1] = 2
    names = [f'c{i}' for i in range(classes)]
    text = section(counts, names)
    assert len(text) < 400_000
    if classes <= MANY:
        assert len(cells(text)) == classes
        return
    assert cells(text) == [['c0', 'c1', '2', '9', '22.2']]
    assert f'{classes} classes are too many' in text
    assert f'2 of {7 * classes + 2} images are wrong, in 1 pairs' in text


def test_the_most_confused_pairs_come_first() -> None:
    counts = np.zeros((100, 100), int)
    for i in range(PAIRS + 5):
        counts[i, i + 1] = i + 1
    assert most_confused(counts)[0] == (PAIRS + 4, PAIRS + 5, PAIRS + 5)
    text = section(counts, list(map(str, range(100))))
    assert len(cells(text)) == PAIRS
    assert f'in {PAIRS + 5} pairs of classes; the {PAIRS} most' in text


def test_no_mistake_among_many_classes_has_no_list() -> None:
    text = section(np.eye(50, dtype=int), list(map(str, range(50))))
    assert '0 of 50 images are wrong' in text and '<table' not in text
