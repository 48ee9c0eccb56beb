"""The report page, as text and in a browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List

import cv2
import pytest
from converters import FORMATS, draw

from mmconvnext.data.project import Order, make
from mmconvnext.data.settings import Machine

ROOT = Path(__file__).parents[2]
CPU = Machine('', 8 << 30, False, False, 2)
BROWSERS = ('chromium', 'google-chrome', 'chromium-browser')
VOID = ('meta', 'img', 'br', 'link', 'input')


@pytest.fixture(scope='module', params=['coco', 'colours'])
def page(request, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('page')
    FORMATS[request.param].write(root / 'a <b> & c', draw())
    order = Order(
        root / 'a <b> & c',
        root / 'mine.py',
        ROOT / 'configs/_base_',
        arch='atto',
        html=True,
    )
    return make(order, CPU).page


class Tags(HTMLParser):
    """Collects tags, and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []
        self.seen: Dict[str, List[dict]] = {}

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.setdefault(tag, []).append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert 'http' not in re.sub(r'base64,[^"]*', '', text).replace(
        'http-equiv', ''
    )
    assert len(tags.seen['img']) == 12
    assert all(
        image['src'].startswith('data:image/webp;base64,')
        for image in tags.seen['img']
    )
    assert 'a &lt;b&gt; &amp; c' in text and '<b> &' not in text
    assert text.count('class="bar"') >= 3


@pytest.mark.parametrize('width', [1280, 500])
def test_a_browser_shows_it(page: Path, width: int, tmp_path: Path) -> None:
    """Render it, and see that nothing is wider than the window."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')
    picture = tmp_path / 'page.png'
    options = [browser, '--headless', '--no-sandbox', '--disable-gpu']
    options += ['--hide-scrollbars', f'--user-data-dir={tmp_path / "home"}']
    subprocess.run(
        [
            *options,
            f'--window-size={width},1600',
            f'--screenshot={picture}',
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )
    shown = cv2.imread(str(picture))
    assert shown.shape[1] == width
    # Words at the top, colours of bars and samples below.
    assert (shown[:120] < 100).any()
    spread = shown.max(2).astype(int) - shown.min(2)
    assert (spread > 60).mean() > 0.01
    # The margin on the right is free: nothing reaches beyond it.
    margin = shown[:, -8:].reshape(-1, 3)
    assert (margin == margin[0]).all()
