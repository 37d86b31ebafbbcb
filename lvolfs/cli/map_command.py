"""map: where the clusters are, as blocks in the terminal and as a picture."""

import colorsys
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from lvolfs.cli import arguments, output
from lvolfs.cli.opening import open_target

FREE = "#3a3a3a"
METADATA = "#8a8a8a"
CELL = 6
"""Pixels of a cluster's square in the picture."""
MAX_ROWS = 40
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def show_map(
    target: arguments.Target,
    lvol: Annotated[str | None, typer.Argument(metavar="[LVOL]")] = None,
    *,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a picture, a square per cluster.")
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Draw which lvol owns each cluster of the store, or where an lvol's clusters are read from."""
    with open_target(target) as session:
        if lvol is None:
            document = session.call("lvolfs_get_cluster_map")
            nobody = "free"
        else:
            document = session.call("lvolfs_get_lvol_map", name=session.lvol(lvol))
            nobody = "zeros"
    if png is not None:
        _draw(document, png)
    if json:
        output.print_json(document)
    elif png is None:
        output.show(_blocks(document, nobody))
    else:
        output.say(f"drew {document['num_clusters']} clusters to {png}")


def _colours(owners: list[str]) -> list[str]:
    """Evenly spread hues; metadata is grey."""
    colours = []
    for index, owner in enumerate(owners):
        red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.65, 0.95)
        colour = f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"
        colours.append(METADATA if index == 0 and owner == "metadata" else colour)
    return colours


def _cells(document: dict[str, Any]) -> list[int]:
    cells = [-1] * document["num_clusters"]
    for first, count, owner in document["runs"]:
        cells[first : first + count] = [owner] * count
    return cells


def _blocks(document: dict[str, Any], nobody: str) -> Text:
    """A character per cluster, or per so many clusters that the map fits."""
    width = min(shutil.get_terminal_size().columns, 128)
    cells = _cells(document)
    per_block = -(-len(cells) // (width * MAX_ROWS)) or 1
    owners = document["owners"]
    colours = _colours(owners)
    coloured = sys.stdout.isatty()
    text = Text(no_wrap=True)
    for start in range(0, len(cells), per_block):
        block = cells[start : start + per_block]
        owner = max(set(block), key=lambda cell: (cell >= 0, block.count(cell)))
        if coloured:
            text.append("█", style=FREE if owner < 0 else colours[owner])
        else:
            text.append("." if owner < 0 else LETTERS[owner % len(LETTERS)])
        if (start // per_block + 1) % width == 0:
            text.append("\n")
    text.append("\n")
    unit = "cluster" if per_block == 1 else f"{per_block} clusters"
    text.append(f"one block = {unit} of {document['cluster_size']} bytes\n")
    for index, owner in enumerate(owners):
        count = cells.count(index)
        sign = "█" if coloured else LETTERS[index % len(LETTERS)]
        text.append(sign, style=colours[index] if coloured else "")
        text.append(f" {owner}: {count}\n")
    text.append("█" if coloured else ".", style=FREE if coloured else "")
    text.append(f" {nobody}: {cells.count(-1)}")
    return text


def _draw(document: dict[str, Any], path: Path) -> None:
    """As square as possible, a square of CELL pixels per cluster while that fits 4096 pixels."""
    from PIL import Image  # slow to load, and wanted here only

    cells = _cells(document)
    columns = max(1, round(len(cells) ** 0.5))
    rows = -(-len(cells) // columns) or 1
    image = Image.new("P", (columns, rows), color=255)
    palette = [colour for owner in _colours(document["owners"])[:254] for colour in _rgb(owner)]
    palette += [0] * (254 * 3 - len(palette)) + [*_rgb(FREE), 0, 0, 0]
    image.putpalette(palette)
    image.putdata(
        [254 if cell < 0 else cell % 254 for cell in cells] + [255] * (columns * rows - len(cells))
    )
    scale = max(1, min(CELL, 4096 // max(columns, rows)))
    image.resize((columns * scale, rows * scale), Image.Resampling.NEAREST).save(path, "PNG")


def _rgb(colour: str) -> list[int]:
    return [int(colour[position : position + 2], 16) for position in (1, 3, 5)]
