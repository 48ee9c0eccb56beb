"""Names of classes from files beside the labels, with colours or without."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

from ..labels import Folder

# Files with a name a line, besides *.names.
NAME_FILES = ('classes.txt', 'obj.names', 'labels.txt', 'class_names.txt')
Colour = Tuple[int, int, int]


def given_names(folder: Folder) -> Tuple[List[str], str]:
    """Read the names of classes, and say from which file; both may be empty.

    The ``names`` of a YAML file, as YOLO has it, or a text file with a name
    a line.
    """
    for path in folder.ending('.yaml', '.yml'):
        names = _yaml_names(folder, path)
        if names:
            return names, path
    for path in folder.ending('.txt', '.names'):
        base = path.rsplit('/', 1)[-1].lower()
        if base in NAME_FILES or base.endswith('.names'):
            lines = folder.read(path).splitlines()
            return [line.strip() for line in lines if line.strip()], path
    return [], ''


def _yaml_names(folder: Folder, path: str) -> List[str]:
    import yaml

    try:
        content = yaml.safe_load(folder.read(path))
    except yaml.YAMLError:
        return []
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, dict):
        by_index: Dict[int, str] = {int(i): n for i, n in names.items()}
        count = max(by_index, default=-1) + 1
        names = [by_index.get(i, f'class_{i + 1}') for i in range(count)]
    return [str(name) for name in names or ()]


def colour_table(folder: Folder) -> Tuple[Dict[Colour, str], str]:
    """Read which colour is which class, and say from which file.

    A row holds a name and three numbers up to 255, in either order, parted
    by blanks, commas, tabs or colons: CamVid's label_colors.txt,
    class_dict.csv, CVAT's labelmap.txt.
    """
    for path in folder.ending('.txt', '.csv'):
        lines = folder.read(path).splitlines()
        rows = [line for line in lines if line.strip() and line[0] != '#']
        found = [_colour_row(row) for row in rows]
        known = [row for row in found if row]
        # The first row may be a heading.
        if known and len(known) >= len(rows) - 1:
            return {colour: name for name, colour in known}, path
    return {}, ''


def _colour_row(line: str) -> Optional[Tuple[str, Colour]]:
    words = [w for w in re.split(r'[\s,;:]+', line.strip()) if w]
    at = [i for i, word in enumerate(words) if word.isdigit()]
    for i in at:
        three = words[i : i + 3]
        if len(three) == 3 and all(word.isdigit() for word in three):
            rest = words[:i] if i else words[3:]
            values = tuple(int(word) for word in three)
            if rest and max(values) < 256:
                return ' '.join(rest), values
    return None
