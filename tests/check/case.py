"""A crafted fault, and what a check has to say of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.check.base_store import Editor

Craft = Callable[[Editor], None]
# severity, and what is found in the object and in the text
Expected = tuple[str, str, str]
# (offset, length, errno): what the device cannot read
Unreadable = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """findings: exactly those, in any order, apart from the note of a store that was not closed and
    the space that nobody owns once a damaged lvol does not tell any more. lost: lvols that cannot
    be opened; unsure: that go by another name. repaired: nothing is left to find after --repair.
    after: what is left to find then, where that is something else. opens: whether the store does.
    unreadable: sectors that the device does not give.
    """

    name: str
    craft: Craft
    findings: list[Expected]
    lost: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    repaired: bool = False
    after: list[Expected] | None = None
    opens: bool = True
    unreadable: Callable[[Editor], Iterable[Unreadable]] | None = None


def damaged(name: str, craft: Craft, text: str, *, lvol: str = "good") -> Case:
    """One lvol cannot be believed any more."""
    return Case(name, craft, [("error", f"'{lvol}'|blob 0x", text)], lost={lvol})
