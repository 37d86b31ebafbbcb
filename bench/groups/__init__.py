"""Groups of cases that share a scene: `open_group(settings)` yields the cases.

A scene makes what a contestant needs when the first of its samples is taken, so choosing few
cases and contestants costs little.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from bench.case import Case
from bench.groups import data_path
from bench.settings import Settings

GROUPS: dict[str, Callable[[Settings], AbstractContextManager[list[Case]]]] = {
    "fio": data_path.open_fio,
    "sweep": data_path.open_sweep,
}
