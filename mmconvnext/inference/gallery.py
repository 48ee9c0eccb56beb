"""One HTML page with all pictures of a folder in it; it needs no network."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np

from .pictures import Drawn, Score, side_by_side

PathLike = Union[str, Path]
WIDTH = 960  # pixels of all panels of a row together
MANY = 200  # classes, from which on their table is folded
QUALITY = 70  # of WebP: 500 rows are some 20 MB


class Entry(NamedTuple):
    """A row of the page.

    ``captions`` are those of the panels; ``thumbnail`` is a WebP file, empty
    where none was asked for, of ``size`` (width, height); ``picture`` is the
    whole picture's name beside the page. ``as_it_is`` keeps the row from
    being enlarged to the width of the page.
    """

    name: str
    captions: Sequence[str]
    score: Optional[Score]
    thumbnail: bytes
    size: Sequence[int]
    picture: str
    as_it_is: bool = False


def entry(
    name: str, drawn: Drawn, thumbnail: bool = True, picture: PathLike = ''
) -> Entry:
    """Keep of a drawn image what the page needs; the rest may go."""
    data, size = b'', (0, 0)
    if thumbnail:
        data, size = _shrink(list(drawn.panels.values()))
    link = Path(picture or f'{name}.png').as_posix()
    captions, sample = list(drawn.panels), drawn.sample
    # Bars beside an image have their size, and say what they are.
    bars = sample is not None and 'pred_scores' in sample
    captions = [] if bars else captions
    return Entry(name, captions, drawn.score, data, size, link, bars)


def _shrink(panels: List[np.ndarray]) -> tuple:
    row = side_by_side(panels)
    scale = min(1, WIDTH / row.shape[1])
    size = [
        max(1, round(side * scale)) for side in (row.shape[1], row.shape[0])
    ]
    row = cv2.resize(row, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
    _, data = cv2.imencode('.webp', row[..., ::-1], options)
    return data.tobytes(), size


def first_mean(score: Score) -> float:
    """Return the number that images are ordered by."""
    return next(iter(score.means.values()))


def worst_first(entries: Sequence[Entry]) -> List[Entry]:
    """Order by score, lowest first; without one to the end, by name."""

    def rank(item: Entry) -> tuple:
        value = first_mean(item.score) if item.score else math.nan
        unknown = math.isnan(value)
        return unknown, 0.0 if unknown else value, item.name

    return sorted(entries, key=rank)


def page(
    title: str,
    entries: Sequence[Entry],
    total: Optional[Score] = None,
    colours: Mapping[str, Sequence[int]] = {},
    rule: str = '',
    failures: Sequence[str] = (),
    absent: str = '',
    details: str = '',
) -> str:
    """Write the page.

    Args:
        title: of the page.
        entries: rows in their order; the reader can choose another.
        total: of the whole folder, None without labels.
        colours: RGB by class, where classes have one.
        rule: what an image's score is.
        failures: lines about images that are not here.
        absent: what a dash in the table of classes means.
        details: HTML after that table.
    """
    from jinja2 import Environment

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters['number'] = _number
    environment.filters['base64'] = lambda data: base64.b64encode(
        data
    ).decode()
    places = {name: i for i, name in enumerate(total.classes if total else ())}
    return environment.from_string(TEMPLATE).render(
        title=title,
        entries=entries,
        total=total,
        colours=colours,
        rule=rule,
        failures=failures,
        absent=absent,
        details=details,
        first_mean=first_mean,
        class_column=lambda item: _class_column(item, places),
        width=WIDTH,
        many=MANY,
    )


def _number(value: float) -> str:
    return '–' if math.isnan(value) else f'{value:.1f}'


def _class_column(item: Entry, places: Mapping[str, int]) -> str:
    """List the first column by class, for the page's own sorting.

    Written as PLACE:VALUE, without the classes that are not in the image:
    of a thousand classes it has one.
    """
    first = {
        k: next(iter(row.values())) for k, row in item.score.classes.items()
    }
    return ' '.join(
        f'{places[name]}:{value:.2f}'
        for name, value in first.items()
        if not math.isnan(value)
    )


TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a;
  max-width: {{ width }}px; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right;
  border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
tfoot td { font-weight: 600; border-bottom: 0; }
.bar { width: 160px; text-align: left; }
.bar i { display: block; height: .7em; background: #0072b2; }
article { margin: 1.2rem 0; content-visibility: auto;
  contain-intrinsic-size: auto 300px; }
article img { display: block; width: 100%; height: auto; }
article img.as-it-is { width: auto; max-width: 100%; }
.head, .captions { display: flex; justify-content: space-between;
  gap: 1rem; }
.head b { overflow-wrap: anywhere; }
.captions { gap: .35rem; }
.captions span { flex: 1; color: #555; font-size: .85rem; }
.swatch { display: inline-block; width: .9em; height: .9em;
  margin-right: .5em; outline: 1px solid #999; vertical-align: -.1em; }
.note { color: #555; }
.failed { color: #a33c00; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="note">{{ entries|length }} images. The pictures here are shrunk to
{{ width }} pixels across all panels; the whole ones lie beside this page as
NAME.png, and open with a click while they do. This page needs no network.</p>
{% if failures %}
<p class="failed">{{ failures|length }} not drawn:</p>
<ul class="failed">
{% for line in failures %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
{% if total %}
{% if total.classes|length > many %}
<details><summary>{{ total.classes|length }} classes, mean \
{% for column, value in total.means.items() %}{{ column }} \
{{ value|number }} %{{ '' if loop.last else ', ' }}{% endfor %}</summary>
{% endif %}
<table>
<thead><tr><th>class</th>
{% for column in total.means %}
<th>{{ column }} (%)</th>
{% endfor %}
<th class="bar">{{ (total.means|list)[0] }}</th></tr></thead>
<tbody>
{% for name, row in total.classes.items() %}
<tr><td>{% if name in colours %}<i class="swatch" style="background: \
rgb({{ colours[name]|join(', ') }})"></i>{% endif %}{{ name }}</td>
{% for value in row.values() %}
<td>{{ value|number }}</td>
{% endfor %}
{% set first = (row.values()|list)[0] %}
<td class="bar">{% if first == first %}<i style="width: \
{{ '%.1f'|format(first) }}%"></i>{% endif %}</td></tr>
{% endfor %}
</tbody>
<tfoot><tr><td>mean</td>
{% for value in total.means.values() %}
<td>{{ value|number }}</td>
{% endfor %}
<td></td></tr></tfoot>
</table>
{% if total.classes|length > many %}
</details>
{% endif %}
{% if total.overall %}
<p>{% for name, value in total.overall.items() %}\
<b>{{ name }} {{ value|number }} %</b>{{ '' if loop.last else ', ' }}\
{% endfor %}</p>
{% endif %}
<p class="note">Over all images together. –: {{ absent }}.
An image's score: {{ rule }}.</p>
{{ details|safe }}
<p><label>Order <select id="order">
<option value="worst">worst first</option>
<option value="best">best first</option>
<option value="name">by name</option>
{% for name in total.classes %}
<option value="{{ loop.index0 }}">worst {{ name }} first</option>
{% endfor %}
</select></label></p>
{% endif %}
<main>
{% for item in entries %}
<article data-name="{{ item.name }}"\
{% if item.score %} data-score="{{ first_mean(item.score) }}" \
data-classes="{{ class_column(item) }}"{% endif %}>
<div class="head"><b>{{ item.name }}</b>\
{% if item.score %}<span>\
{% for key, word in item.score.words.items() %}\
{{ key }} {{ word }}, {% endfor %}\
{% for column, value in item.score.means.items() %}\
{{ column }} {{ value|number }}{{ '' if loop.last else ', ' }}\
{% endfor %}</span>{% endif %}</div>
<div class="captions">\
{% for caption in item.captions %}<span>{{ caption }}</span>{% endfor %}</div>
<a href="{{ item.picture|urlencode }}"><img \
{% if item.as_it_is %}class="as-it-is" {% endif %}loading="lazy"
 decoding="async"
 width="{{ item.size[0] }}" height="{{ item.size[1] }}" alt="{{ item.name }}"
 src="data:image/webp;base64,{{ item.thumbnail|base64 }}"></a>
</article>
{% endfor %}
</main>
{% if total %}
<script>
const rows = [...document.querySelectorAll('article')];
const score = row => parseFloat(row.dataset.score);
const ofClass = i => row => parseFloat(
  row.dataset.classes.split(' ').find(x => x.startsWith(i + ':'))
    ?.split(':')[1]);
const byName = (a, b) => a.dataset.name < b.dataset.name ? -1 : 1;
const by = value => (a, b) => {
  const [x, y] = [value(a), value(b)];
  return (isNaN(x) - isNaN(y)) || (x - y) || byName(a, b);
};
const keys = { worst: by(score), best: by(row => -score(row)), name: byName };
document.getElementById('order').addEventListener('change', event => {
  const i = event.target.value;
  const key = keys[i] || by(ofClass(+i));
  document.querySelector('main').append(...rows.sort(key));
});
</script>
{% endif %}
</body>
</html>
"""
