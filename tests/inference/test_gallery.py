"""The HTML page, from pictures drawn here."""

import base64
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import picture, score

from mmconvnext.inference.gallery import MANY, WIDTH, entry, page, worst_first
from mmconvnext.inference.pictures import Drawn


def test_order_is_worst_first_and_unknown_last() -> None:
    drawn = {
        name: Drawn({'input': picture()}, value)
        for name, value in {
            'good': score(a=80),
            'none': score(a=math.nan),
            'bad': score(a=10),
            'also bad': score(a=10),
        }.items()
    }
    entries = [entry(name, d, thumbnail=False) for name, d in drawn.items()]
    names = [item.name for item in worst_first(entries)]
    assert names == ['also bad', 'bad', 'good', 'none']
    plain = [entry(n, Drawn({'input': picture()})) for n in 'ba']
    assert [item.name for item in worst_first(plain)] == ['a', 'b']


class Links(HTMLParser):
    """Collects tags, and attributes that make a browser load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.sources, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ('src', 'srcset', 'data', 'poster'):
                self.sources.append(value)
            elif name == 'href':
                self.links.append((tag, value))


NASTY = "dir/<b>&\"'x'.jpg"


def nasty_page() -> str:
    wide = picture(300, 1000)
    panels = {'input': wide, 'prediction': wide}
    entries = [
        entry(NASTY, Drawn(panels, score(sky=40.0, road=math.nan))),
        entry('y.jpg', Drawn({'input': picture()}, score(sky=1, road=2))),
    ]
    total = score(sky=30.25, road=math.nan)
    return page(
        'a <title>',
        entries,
        total,
        dict(sky=(1, 2, 3), road=(4, 5, 6)),
        'rule & so on',
        ['<script>alert(1)</script>: broken'],
    )


def test_a_table_of_many_classes_is_folded() -> None:
    for count in (MANY, MANY + 1):
        total = score(**{f'c{i}': 50.0 for i in range(count)})
        item = entry('x.jpg', Drawn({'input': picture()}, score(c7=40.0)))
        text = page('t', [item], total)
        folded = f'<summary>{count} classes, mean IoU 50.0 %</summary>'
        assert (folded in text) == (count > MANY)
        assert 'data-classes="7:40.00"' in text and len(text) < 90_000


BROWSERS = ('chromium', 'google-chrome', 'chromium-browser')
CHOOSE = """<script>
const menu = document.getElementById('order');
menu.value = '%s';
menu.dispatchEvent(new Event('change'));
</script></body>"""
ORDERS = {
    'worst': ['b', 'a', 'c', 'd'],
    'best': ['d', 'c', 'a', 'b'],
    'name': ['a', 'b', 'c', 'd'],
    '1': ['a', 'd', 'b', 'c'],  # road; not in b, c
    '10': ['c', 'a', 'b', 'd'],  # the 11th class, whose place starts with 1
}


@pytest.mark.parametrize('choice', ORDERS)
def test_the_menu_orders_the_rows(choice: str, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')
    rows = {
        'a': score(sky=20.0, road=20.0),
        'b': score(sky=10.0, road=math.nan),
        'c': score(c10=50.0),
        'd': score(sky=100.0, road=80.0),
    }
    entries = [
        entry(name, Drawn({'input': picture()}, value))
        for name, value in rows.items()
    ]
    names = ['sky', 'road', *(f'c{i}' for i in range(2, 12))]
    total = score(**dict.fromkeys(names, 50.0))
    text = page('t', worst_first(entries), total)
    file = tmp_path / 'page.html'
    file.write_text(text.replace('</body>', CHOOSE % choice), encoding='utf-8')
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--dump-dom']
    options.append(f'--user-data-dir={tmp_path / "home"}')
    done = subprocess.run(
        [browser, *options, file.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=180,
    )
    found = re.findall(r'<article data-name="(\w)"', done.stdout)
    assert found == ORDERS[choice]


def test_page_needs_nothing_else() -> None:
    text = nasty_page()
    links = Links(text)
    assert len(links.sources) == 2
    assert all(s.startswith('data:image/webp;base64,') for s in links.sources)
    assert not {'link', 'iframe', 'object', 'embed', 'base'} & set(links.tags)
    assert {tag for tag, _ in links.links} == {'a'}
    assert "default-src 'none'; img-src data:;" in text
    assert not re.search(r'https?:|url\(|@import|fetch\(|XMLHttp', text)


def test_page_escapes_what_files_are_called() -> None:
    text = nasty_page()
    assert '<b>&"' not in text and '<title>a &lt;title&gt;</title>' in text
    assert Links(text).tags.count('script') == 1
    # The link must lead to the file, whatever its name.
    assert 'dir/%3Cb%3E%26%22%27x%27.jpg.png' in [
        link for _, link in Links(text).links
    ]


def test_page_shrinks_and_keeps_the_pictures() -> None:
    first, second = (
        cv2.imdecode(
            np.frombuffer(base64.b64decode(s.split(',')[1]), np.uint8), 1
        )
        for s in Links(nasty_page()).sources
    )
    assert first.shape == (round(300 * WIDTH / 2008), WIDTH, 3)
    assert second.shape == (40, 60, 3)
    assert abs(int(second[20, 30, 0]) - 90) < 4


def test_bars_are_not_enlarged() -> None:
    for key in ('pred_scores', 'pred_sem_seg'):
        drawn = Drawn({'input': picture()}, sample={key: None})
        text = page('t', [entry('x.jpg', drawn)])
        bars = key == 'pred_scores'
        assert ('<img class="as-it-is" loading="lazy"' in text) == bars
        assert ('<span>input</span>' in text) != bars


def test_page_shows_classes_and_scores() -> None:
    text = nasty_page()
    assert re.search(r'rgb\(1, 2, 3\).*sky</td>\s*<td>30\.2</td>', text)
    assert re.search(r'road</td>\s*<td>–</td>', text)
    # What is not in the image is left out: the place of sky is 0.
    assert 'data-score="40.0" data-classes="0:40.00"' in text
    assert '<span>input</span><span>prediction</span>' in text
    assert 'rule &amp; so on' in text
    plain = page('t', [entry('z', Drawn({'input': picture()}))])
    assert '<table>' not in plain and '<script>' not in plain
