"""The life of an lvol: volume create|resize|..., snapshot, clone."""

from pathlib import Path
from typing import Annotated

import typer

from lvolfs.cli import arguments, output
from lvolfs.cli.amounts import OptionalSize, Size, format_size
from lvolfs.cli.failure import CommandFailedError
from lvolfs.cli.following import follow
from lvolfs.cli.opening import Session, open_target

app = typer.Typer(
    help="Create, resize, rename, delete volumes; loosen and change their parents.",
    no_args_is_help=True,
)

NewName = Annotated[str, typer.Argument(metavar="NAME", help="The name to give.")]
ExternalSnapshot = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="A file or block device outside of the store."),
]


def _report(session: Session, reference: str, text: str, *, json: bool) -> None:
    """The lvol as it is now, for programs; a line for people."""
    if json:
        output.print_json(session.call("lvolfs_get_lvol", name=reference))
    else:
        output.say(text)


@app.command("create")
def create(
    target: arguments.Target,
    name: NewName,
    *,
    size: OptionalSize = None,
    thick: Annotated[
        bool, typer.Option("--thick", help="Allocate every cluster now; the default is thin.")
    ] = False,
    external_snapshot: ExternalSnapshot = None,
    json: arguments.Json = False,
) -> None:
    """Make a volume: of a size, or as a clone of a file or device outside of the store."""
    if (size is None) == (external_snapshot is None) or (external_snapshot and thick):
        raise typer.BadParameter("give --size, with or without --thick, or --external-snapshot")
    with open_target(target, write=True) as session:
        if external_snapshot is not None:
            path = str(Path(external_snapshot).resolve())
            uuid = session.call("lvolfs_create_external_clone", name=name, path=path)
        else:
            uuid = session.call("lvolfs_create_volume", name=name, size=size, thick=thick)
        created = session.call("lvolfs_get_lvol", name=uuid)
        _report(session, uuid, f"created volume {name}, {format_size(created['size'])}", json=json)


@app.command("resize")
def resize(
    target: arguments.Target, lvol: arguments.Lvol, *, size: Size, json: arguments.Json = False
) -> None:
    """Give a volume another size; shrinking frees the clusters past the end."""
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        session.call("lvolfs_resize", name=reference, size=size)
        now = session.call("lvolfs_get_lvol", name=reference)["size"]
        _report(session, reference, f"{lvol} has {format_size(now)} now", json=json)


@app.command("rename")
def rename(
    target: arguments.Target, lvol: arguments.Lvol, name: NewName, *, json: arguments.Json = False
) -> None:
    """Give an lvol another name."""
    with open_target(target, write=True) as session:
        session.call("bdev_lvol_rename", old_name=session.lvol(lvol), new_name=name)
        _report(session, session.lvol(name), f"{lvol} is called {name} now", json=json)


@app.command("delete")
def delete(target: arguments.Target, lvol: arguments.Lvol) -> None:
    """Delete a volume or snapshot; a snapshot's clusters go to its one clone, if it has one."""
    with open_target(target, write=True) as session:
        session.call("bdev_lvol_delete", name=session.lvol(lvol))
    output.say(f"deleted {lvol}")


def _fill(session: Session, method: str, reference: str, label: str) -> None:
    job = follow(session, session.call(method, name=reference), label)
    if job["state"] != "complete":
        raise CommandFailedError(f"{label}: {job['error'] or job['state']}")


@app.command("inflate")
def inflate(
    target: arguments.Target, lvol: arguments.Lvol, *, json: arguments.Json = False
) -> None:
    """Copy everything the parents have into a volume and make it thick, without a parent."""
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        _fill(session, "lvolfs_start_inflate", reference, f"inflate {lvol}")
        _report(session, reference, f"{lvol} stands alone and is thick now", json=json)


@app.command("decouple")
def decouple(
    target: arguments.Target, lvol: arguments.Lvol, *, json: arguments.Json = False
) -> None:
    """Copy the parent's own clusters into a volume and hang it under the grandparent."""
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        _fill(session, "lvolfs_start_decouple", reference, f"decouple {lvol}")
        parent = session.call("lvolfs_get_lvol", name=reference)["parent"]
        text = f"the parent of {lvol} is {parent or 'nobody'} now"
        _report(session, reference, text, json=json)


@app.command("detach")
def detach(target: arguments.Target, lvol: arguments.Lvol, *, json: arguments.Json = False) -> None:
    """Drop an lvol's parents without copying: what it does not own reads as zeros."""
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        session.call("bdev_lvol_detach_parent", name=reference)
        _report(session, reference, f"{lvol} has no parent now", json=json)


@app.command("set-parent")
def set_parent(
    target: arguments.Target,
    lvol: arguments.Lvol,
    parent: Annotated[str | None, typer.Argument(metavar="SNAP")] = None,
    *,
    external_snapshot: ExternalSnapshot = None,
    json: arguments.Json = False,
) -> None:
    """Put a snapshot, or a file or device outside of the store, under a thin volume."""
    if (parent is None) == (external_snapshot is None):
        raise typer.BadParameter("give either SNAP or --external-snapshot")
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        if external_snapshot is not None:
            path = str(Path(external_snapshot).resolve())
            session.call("lvolfs_set_external_parent", name=reference, path=path)
        elif parent is not None:
            session.call(
                "bdev_lvol_set_parent", lvol_name=reference, parent_name=session.lvol(parent)
            )
        text = f"the parent of {lvol} is {parent or external_snapshot} now"
        _report(session, reference, text, json=json)


@app.command("set-read-only")
def set_read_only(
    target: arguments.Target, lvol: arguments.Lvol, *, json: arguments.Json = False
) -> None:
    """Refuse every later write to a volume; there is no way back."""
    with open_target(target, write=True) as session:
        reference = session.lvol(lvol)
        session.call("bdev_lvol_set_read_only", name=reference)
        _report(session, reference, f"{lvol} is read-only now", json=json)


def snapshot(
    target: arguments.Target,
    lvol: arguments.Lvol,
    name: NewName,
    *,
    xattr: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An xattr for the snapshot; may be repeated."),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Freeze a volume's content under a new name; the volume goes on as its clone."""
    pairs = [text.partition("=") for text in xattr or []]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise typer.BadParameter("--xattr takes NAME=VALUE")
    with open_target(target, write=True) as session:
        uuid = session.call(
            "bdev_lvol_snapshot",
            lvol_name=session.lvol(lvol),
            snapshot_name=name,
            xattrs={key: value for key, _, value in pairs},
        )
        _report(session, uuid, f"created snapshot {name} of {lvol}", json=json)


def clone(
    target: arguments.Target,
    snap: arguments.Snapshot,
    name: NewName,
    *,
    json: arguments.Json = False,
) -> None:
    """Make a writable volume that starts with a snapshot's content."""
    with open_target(target, write=True) as session:
        uuid = session.call("bdev_lvol_clone", snapshot_name=session.lvol(snap), clone_name=name)
        _report(session, uuid, f"created volume {name}, a clone of {snap}", json=json)
