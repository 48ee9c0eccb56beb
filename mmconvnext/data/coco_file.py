"""Read a COCO file, with every value of the type that hosts compute with."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

Kind = Tuple[Tuple[type, ...], str]  # types that fit, and words for them
ID: Kind = ((int, str, float), 'a number or a text')
TEXT: Kind = ((str,), 'a text')
NAME: Kind = ((str, int), 'a name')
NUMBER: Kind = ((int, float), 'a number')
FLAG: Kind = ((int, float, type(None)), '0 or 1')
ANY: Kind = ((object,), 'anything')
# list: the keys that hosts read of each of its rows; a box is judged with
# the size of its image
NEEDED: Dict[str, Dict[str, Kind]] = {
    'images': dict(id=ID, file_name=TEXT, width=NUMBER, height=NUMBER),
    'annotations': dict(
        id=ID, image_id=ID, category_id=ID, bbox=ANY, area=NUMBER
    ),
    'categories': dict(id=ID, name=NAME),
}
# What a row may have besides.
OPTIONAL: Dict[str, Dict[str, Kind]] = {'annotations': dict(iscrowd=FLAG)}


def read_coco(path: str) -> Dict[str, List[Dict]]:
    """Read a COCO file whose rows have all keys that hosts read.

    Raises:
        ValueError: says what is missing, or of another type.
    """
    try:
        with open(path, encoding='utf-8') as stream:
            content = json.load(stream)
    except OSError as error:
        raise ValueError(f'no readable file ({error.strerror})') from None
    except UnicodeDecodeError as error:
        raise ValueError(f'no text in UTF-8 ({error}): save it so') from None
    except ValueError as error:
        if 'BOM' in str(error):
            raise ValueError(
                'a byte order mark at its beginning, which hosts refuse: '
                'save the file as UTF-8 without one'
            ) from None
        raise ValueError(f'no JSON ({error})') from None
    for name in NEEDED:
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f'no list {name!r}')
        for place, row in enumerate(rows):
            _check_row(f'{name}[{place}]', name, row)
    return content


def _check_row(where: str, name: str, row: Any) -> None:
    """Refuse a row that lacks a key or has a value of another type."""
    if not isinstance(row, dict):
        raise ValueError(f'{where} is {row!r}, not an object with keys')
    for key, (types, words) in NEEDED[name].items():
        if key not in row:
            raise ValueError(f'no {key!r} in {where}')
        if not isinstance(row[key], types):
            raise ValueError(f'{key}={row[key]!r} in {where}, not {words}')
    for key, (types, words) in OPTIONAL.get(name, {}).items():
        if not isinstance(row.get(key), (*types, type(None))):
            raise ValueError(f'{key}={row[key]!r} in {where}, not {words}')
