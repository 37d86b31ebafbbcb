"""create, info, ls: the store as a whole."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import Size, format_size, parse_size
from lvolfs.cli.opening import open_target
from lvolfs.lvstore.store import Lvstore
from lvolfs.report.documents import store_document


def create(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A file or block device.")],
    *,
    size: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Of a new, sparse file; an existing file or device keeps its size.",
        ),
    ] = None,
    cluster_size: Size = "1M",  # type: ignore[assignment]
    block_size: Annotated[int, typer.Option(metavar="BYTES", help="512 or 4096.")] = 4096,
    name: Annotated[str, typer.Option(metavar="NAME", help="The store's name.")] = "lvs0",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a store or other data there.")
    ] = False,
    json: arguments.Json = False,
) -> None:
    """Make a new store."""
    path = str(Path(store))
    with Lvstore.create(
        path,
        size=size,
        cluster_size=cluster_size,
        name=name,
        block_size=block_size,
        force=force,
    ) as made:
        document = store_document(made)
    if json:
        output.print_json(document)
    else:
        output.say(
            f"created {path}: store {name}, {document['total_clusters']} clusters of "
            f"{format_size(cluster_size)}, uuid {document['uuid']}"
        )


def info(target: arguments.Target, *, json: arguments.Json = False) -> None:
    """What a store is and how full it is."""
    with open_target(target) as session:
        store = session.store
    if json:
        output.print_json(store)
        return
    total, free = store["total_clusters"], store["free_clusters"]
    used = total - free
    percent = 100 * used / total if total else 100
    pairs = [
        ("store", store["name"]),
        ("uuid", store["uuid"]),
        ("path", store["path"]),
        ("mounted", _where(store)),
        ("cluster size", format_size(store["cluster_size"])),
        ("block size", format_size(store["block_size"])),
        ("clusters", f"{total} ({format_size(store['size'])})"),
        ("used", f"{used} ({format_size(used * store['cluster_size'])}, {percent:.0f} %)"),
        ("free", f"{free} ({format_size(store['free'])})"),
        ("volumes", str(store["num_volumes"])),
        ("snapshots", str(store["num_snapshots"])),
    ]
    if store["read_only"]:
        pairs.append(("access", "read-only"))
    output.show(output.facts(pairs))
    for damaged in store["damaged"]:
        label = damaged["name"] or f"blob {damaged['blob_id']:#x}"
        output.note(f"damaged: {label}: {damaged['reason']}")


def _where(store: dict[str, Any]) -> str:
    if store["mountpoint"]:
        return f"{store['mountpoint']} (pid {store['pid']})"
    return "no"


def ls(
    target: arguments.Target,
    *,
    tree: Annotated[bool, typer.Option("--tree", help="Show who descends from whom.")] = False,
    json: arguments.Json = False,
) -> None:
    """The lvols of a store."""
    with open_target(target) as session:
        lvols: list[dict[str, Any]] = session.call("lvolfs_get_lvols")
        cluster_size = session.store["cluster_size"]
    if json:
        output.print_json(lvols)
    elif tree:
        output.show(_tree(lvols, target, cluster_size))
    else:
        columns = ("name", "type", "size", "owned", "parent", "checksum", "created")
        rows = (_row(lvol, cluster_size) for lvol in lvols)
        output.show(output.table(columns, rows, right="size owned"))


def _row(lvol: dict[str, Any], cluster_size: int) -> tuple[str, ...]:
    checksum = lvol["checksum"]
    return (
        lvol["name"],
        _kind(lvol),
        format_size(lvol["size"]),
        format_size(lvol["num_allocated_clusters"] * cluster_size),
        lvol["parent"] or lvol["external_snapshot"] or "-",
        f"{checksum['algorithm']} {checksum['checksum'] or 'partial'}" if checksum else "-",
        lvol["creation_time"] or "-",
    )


def _kind(lvol: dict[str, Any]) -> str:
    words = [lvol["type"]]
    if not lvol["thin_provision"]:
        words.append("thick")
    if lvol["read_only"] and lvol["type"] == "volume":
        words.append("read-only")
    if lvol["degraded"]:
        words.append("degraded")
    if lvol["busy"]:
        words.append(f"({lvol['busy']})")
    return " ".join(words)


def _tree(lvols: list[dict[str, Any]], title: str, cluster_size: int) -> Tree:
    """Parents above their children; an lvol whose parent is not listed stands at the top."""
    root = Tree(title, highlight=False)
    names = {lvol["name"] for lvol in lvols}
    branches: dict[str, Tree] = {}
    waiting = list(lvols)
    while waiting:
        later = []
        for lvol in waiting:
            parent = lvol["parent"]
            branch = root if parent not in names else branches.get(parent)
            if branch is None:
                later.append(lvol)
                continue
            owned = format_size(lvol["num_allocated_clusters"] * cluster_size)
            label = f"{lvol['name']}  {_kind(lvol)}, owns {owned} of {format_size(lvol['size'])}"
            branches[lvol["name"]] = branch.add(label)
        if len(later) == len(waiting):
            for lvol in later:  # a loop of parents: damaged, but shown
                root.add(f"{lvol['name']}  {_kind(lvol)}, parent {lvol['parent']}")
            break
        waiting = later
    return root
