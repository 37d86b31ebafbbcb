"""The arguments and options that several verbs share."""

from typing import Annotated

import typer

from lvolfs.cli.amounts import parse_clusters, parse_size

Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A store's path, or a mounted store's mount point.")
]
Lvol = Annotated[str, typer.Argument(metavar="LVOL", help="A name, a uuid or lvs/name.")]
Snapshot = Annotated[str, typer.Argument(metavar="SNAP", help="A snapshot: name, uuid, lvs/name.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Rate = Annotated[
    int | None,
    typer.Option(parser=parse_size, metavar="SIZE", help="Bytes per second at most."),
]
Clusters = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Only these clusters, as in 0-7,12."),
]


def cluster_runs(text: str | None) -> list[list[int]] | None:
    """The [first, count] runs of a --clusters option."""
    return None if text is None else parse_clusters(text)
