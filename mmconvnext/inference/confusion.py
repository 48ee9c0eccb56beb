"""Which classes a classifier takes for which, as HTML."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

MANY = 30  # classes: more than these are listed by pair
PAIRS = 30  # of them, the most frequent


def section(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Write a confusion matrix, or the most confused pairs of many classes.

    Args:
        counts: ``(classes, classes)`` images, rows true, columns predicted.
        classes: names.

    Returns:
        HTML that loads nothing, for the body of a page.
    """
    from jinja2 import Environment

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    few = len(classes) <= MANY
    content = _matrix(counts, classes) if few else _pairs(counts, classes)
    template = MATRIX if few else LIST
    return environment.from_string(template).render(content)


def _matrix(counts: np.ndarray, classes: Sequence[str]) -> Dict[str, Any]:
    totals = counts.sum(1)
    rows = []
    for i, name in enumerate(classes):
        total = int(totals[i])
        cells = [
            dict(
                count=int(count),
                share=count / max(total, 1),
                colour='0, 114, 178' if i == k else '213, 94, 0',
                name=classes[k],
            )
            for k, count in enumerate(counts[i])
        ]
        recall = f'{100 * counts[i, i] / total:.1f}' if total else '–'
        rows.append(dict(name=name, cells=cells, total=total, recall=recall))
    return dict(classes=classes, rows=rows)


def most_confused(counts: np.ndarray) -> List[tuple]:
    """List (true, predicted, images) of every confusion, most first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind='stable')
    return [
        (int(rows[k]), int(columns[k]), int(wrong[rows[k], columns[k]]))
        for k in order
    ]


def _pairs(counts: np.ndarray, classes: Sequence[str]) -> Dict[str, Any]:
    pairs, totals = most_confused(counts), counts.sum(1)
    rows = [
        dict(
            true=classes[i],
            predicted=classes[k],
            count=count,
            total=int(totals[i]),
            share=100 * count / totals[i],
        )
        for i, k, count in pairs[:PAIRS]
    ]
    return dict(
        rows=rows,
        pairs=len(pairs),
        classes=len(classes),
        wrong=sum(count for *_, count in pairs),
        images=int(counts.sum()),
    )


MATRIX = """\
<style>
.confusion { overflow-x: auto; }
.confusion table { font-size: .85rem; margin: .3rem 0; }
.confusion th, .confusion td { padding: .15rem .4rem; text-align: center;
  border: 1px solid #fff; min-width: 1.6em; }
.confusion tbody th { text-align: right; font-weight: 400;
  white-space: nowrap; max-width: 14em; overflow: hidden;
  text-overflow: ellipsis; }
.confusion thead th { font-weight: 400; vertical-align: bottom; }
.confusion thead span { writing-mode: vertical-rl; max-height: 12em;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  transform: rotate(180deg); }
.confusion td.recall { font-weight: 600; padding-left: .8rem; }
</style>
<h2>Confusion</h2>
<p class="note">Rows: the true class. Columns: the predicted one. Numbers are
images; blue is right, orange wrong, the darker the larger the share of the
row. The last columns are the images of the class and its recall.</p>
<div class="confusion"><table id="confusion">
<thead><tr><th>true \\ predicted</th>
{% for name in classes %}
<th scope="col" title="{{ name }}"><span>{{ name }}</span></th>
{% endfor %}
<th scope="col">images</th><th scope="col">recall (%)</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row" title="{{ row.name }}">{{ row.name }}</th>
{% for cell in row.cells %}
<td title="{{ row.name }} taken for {{ cell.name }}: {{ cell.count }} of \
{{ row.total }}" style="background: rgba({{ cell.colour }}, \
{{ '%.2f'|format(0.05 + 0.75 * cell.share if cell.count else 0) }})\
{{ '; color: #fff' if cell.share > 0.6 }}">{{ cell.count or '' }}</td>
{% endfor %}
<td>{{ row.total }}</td><td class="recall">{{ row.recall }}</td></tr>
{% endfor %}
</tbody>
</table></div>
"""

LIST = """\
<h2>Confusion</h2>
<p class="note">{{ classes }} classes are too many for a matrix. \
{{ wrong }} of {{ images }} images are wrong, in {{ pairs }} pairs of classes\
{% if rows|length < pairs %}; the {{ rows|length }} most frequent are listed\
{% endif %}.</p>
{% if rows %}
<table id="confusion">
<thead><tr><th>true</th><th>predicted</th><th>images</th>
<th>of the class</th><th>share (%)</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.true }}</td><td>{{ row.predicted }}</td>
<td>{{ row.count }}</td><td>{{ row.total }}</td>
<td>{{ '%.1f'|format(row.share) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
"""
