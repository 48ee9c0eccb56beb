"""The report as one HTML page that needs no network."""

from __future__ import annotations

import base64
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from .drawing import Sample
from .findings import Finding
from .labels import Labels
from .settings import Choice
from .summary import Summary, size_words, spread_words

BINS = 12  # of the histogram of object sizes


class Bar(NamedTuple):
    """A row of a histogram: words, number, length in percent, colour."""

    name: str
    number: str
    length: float
    colour: str


class Report(NamedTuple):
    """What the page shows."""

    title: str
    labels: Labels
    summary: Summary
    findings: Sequence[Finding]
    choices: Sequence[Choice]
    palette: Sequence[Tuple[int, int, int]]
    samples: Sequence[Sample]


def page(report: Report) -> str:
    """Write the page."""
    from jinja2 import Environment

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters['base64'] = lambda data: base64.b64encode(
        data
    ).decode()
    names = dict(zip(report.labels.classes, map(_css, report.palette)))
    return environment.from_string(TEMPLATE).render(
        title=report.title,
        facts=_facts(report),
        findings=report.findings,
        choices=report.choices,
        histograms=_histograms(report),
        colours=names,
        samples=report.samples,
    )


def _css(colour: Tuple[int, int, int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)


def _facts(report: Report) -> Dict[str, str]:
    labels, summary = report.labels, report.summary
    facts = {
        'format': labels.format,
        'images': str(summary.images),
        'sizes': size_words(summary),
        'without a label': str(summary.images - summary.labelled),
        'classes': str(len(labels.classes)),
    }
    if labels.maps:
        facts['ignored pixels'] = f'{summary.ignored:.1%}'
        return facts
    facts['objects'] = f'{summary.objects}, {summary.masks} with an outline'
    facts['objects an image'] = spread_words(summary.per_image)
    facts['sides of objects'] = spread_words(summary.sides, ' px')
    return facts


def _histograms(report: Report) -> Dict[str, List[Bar]]:
    what = 'Share of pixels' if report.labels.maps else 'Objects'
    result = {f'{what} by class': _class_bars(report)}
    if report.summary.sides:
        result['Objects by side (square root of the box area)'] = _size_bars(
            report.summary
        )
    return result


def _class_bars(report: Report) -> List[Bar]:
    maps = bool(report.labels.maps)
    rows = report.summary.classes.items()
    numbers = {name: row[1 if maps else 0] for name, row in rows}
    total, most = sum(numbers.values()) or 1, max(numbers.values()) or 1
    colours = map(_css, report.palette)
    return [
        Bar(
            name,
            f'{number / total:.1%}' if maps else str(number),
            100 * number / most,
            colour,
        )
        for (name, number), colour in zip(numbers.items(), colours)
    ]


def _size_bars(summary: Summary) -> List[Bar]:
    """Count objects by side, in steps of equal ratio."""
    sides = np.array(summary.sides)
    edges = np.geomspace(sides.min(), sides.max() + 1e-6, BINS + 1)
    counts, _ = np.histogram(sides, edges)
    return [
        Bar(
            f'{low:.0f} to {high:.0f} px',
            str(count),
            100 * count / counts.max(),
            '#4a7ab5',
        )
        for count, low, high in zip(counts, edges, edges[1:])
    ]


TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem;
  max-width: 75rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
.bar { display: grid; grid-template-columns: 9rem 1fr 4.5rem; gap: .6rem;
  align-items: center; }
.bar span:last-child { text-align: right; }
.track { background: #8883; border-radius: 3px; }
.track div { height: .8rem; border-radius: 3px; min-width: 1px; }
.samples { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; } figure img { width: 100%; height: auto; }
figcaption { font-size: .85rem; }
.key { display: inline-block; margin-right: .7rem; }
.key i { display: inline-block; width: .8rem; height: .8rem;
  margin-right: .3rem; border: 1px solid #8888; vertical-align: -1px; }
li b { margin-right: .4rem; }
.warning b { color: #b36b00; } .error b { color: #c62828; }
@media (max-width: 40rem) { .settings { display: block; }
  .settings dd { margin-bottom: .6rem; }
  .bar { grid-template-columns: 6rem 1fr 4rem; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>
{% for name, value in facts.items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
<h2 id="odd">{{ 'Anything odd' if findings else 'Nothing odd' }}</h2>
<ul>
{% for row in findings %}
<li class="{{ row.severity }}"><b>{{ row.severity }}</b>{{ row.file }}:
 {{ row.found }}; expected {{ row.expected }}; {{ row.fix }}</li>
{% endfor %}
</ul>
{% for heading, bars in histograms.items() %}
<section class="histogram">
<h2>{{ heading }}</h2>
{% for bar in bars %}
<div class="bar"><span>{{ bar.name }}</span><div class="track">
<div style="width: {{ '%.2f' % bar.length }}%; background: {{ bar.colour }}">
</div></div><span>{{ bar.number }}</span></div>
{% endfor %}
</section>
{% endfor %}
<h2>Settings</h2>
<dl class="settings">
{% for row in choices %}
<dt>{{ row.name }}: {{ row.words }}</dt><dd>{{ row.reason }}</dd>
{% endfor %}
</dl>
<h2>Samples</h2>
<div class="samples">
{% for sample in samples %}
<figure>
<img loading="lazy" width="{{ sample.size[0] }}" height="{{ sample.size[1] }}"
 alt="{{ sample.name }}" src="data:image/webp;base64,{{ sample.data|base64 }}">
<figcaption>{{ sample.name }}<br>
{% for name in sample.classes %}
<span class="key"><i style="background: {{ colours[name] }}"></i>{{ name }}\
</span>
{% endfor %}
</figcaption>
</figure>
{% endfor %}
</div>
</body>
</html>
"""
