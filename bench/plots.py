"""The plots of a result: speed by block size and depth, rebuilds by share, cost by size."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.case import Outcome

Outcomes = Mapping[str, Outcome]
BLOCKS = {"4k": "4 KiB", "64k": "64 KiB", "1m": "1 MiB"}
DEPTHS = (1, 4, 16, 64)
SHARES = ("0.1", "1", "5", "10", "100")
COLOURS = {
    "lvolfs": "#c0392b",
    "flat-lane": "#7f8c8d",
    "qcow2": "#2471a3",
    "rsync": "#d68910",
    "btrfs": "#1e8449",
    "zfs-fuse": "#7d3c98",
    "qemu bitmap": "#2471a3",
    "full copy": "#17202a",
    "lvolfs command": "#e6897e",
}


class PlotError(RuntimeError):
    """Plots cannot be drawn here."""


def pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise PlotError("matplotlib is missing: scripts/setup --bench installs it") from error
    mpl.use("Agg")
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "lvolfs",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    mpl.rcParams.update(style)
    from matplotlib import pyplot as drawn

    return drawn


def speed_by_depth(outcomes: Outcomes, mode: str, drawn: Any) -> Any | None:
    """IOPS above, median latency below, by depth; a column for each block size."""
    found = {key for key in outcomes if key.startswith(f"sweep.{mode}.")}
    if not found:
        return None
    figure, axes = drawn.subplots(2, len(BLOCKS), figsize=(9, 5), sharex=True)
    for column, (block, title) in enumerate(BLOCKS.items()):
        cases = {
            depth: outcomes[key]
            for depth in DEPTHS
            if (key := f"sweep.{mode}.{block}.qd{depth}.libaio.direct") in outcomes
        }
        names = dict.fromkeys(name for case in cases.values() for name in case.samples)
        for row, figure_name in enumerate(("iops", "latency_p50")):
            axis = axes[row][column]
            for name in names:
                points = [
                    (d, m)
                    for d, c in cases.items()
                    if (m := c.median(name, figure_name)) is not None
                ]
                axis.plot(
                    *zip(*points, strict=True), "o-", ms=3, label=name, color=COLOURS.get(name)
                )
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        axes[0][column].set_title(title)
        axes[1][column].set_xlabel("requests at a time")
    axes[0][0].set_ylabel("IOPS")
    axes[1][0].set_ylabel("median latency, µs")
    axes[0][0].legend(frameon=False)
    figure.suptitle({"randread": "random read", "randwrite": "random overwrite"}[mode])
    figure.tight_layout()
    return figure


def rebuild_by_share(outcomes: Outcomes, drawn: Any) -> Any | None:
    cases = {s: outcomes[f"rebuild.{s}"] for s in SHARES if f"rebuild.{s}" in outcomes}
    if not cases:
        return None
    figure, axis = drawn.subplots(figsize=(6.5, 4))
    names = dict.fromkeys(name for case in cases.values() for name in case.samples)
    for name in names:
        points = [(float(s), m) for s, c in cases.items() if (m := c.median(name)) is not None]
        if len(points) == 1:
            axis.axhline(points[0][1], ls="--", lw=1, color=COLOURS.get(name, "#555555"))
            axis.annotate(name, (0.1, points[0][1]), va="bottom", fontsize=8)
        else:
            axis.plot(*zip(*points, strict=True), "o-", ms=3, label=name, color=COLOURS.get(name))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([float(s) for s in cases], [f"{s} %" for s in cases])
    axis.set_xlabel("clusters changed")
    axis.set_ylabel("seconds")
    axis.set_title(next(iter(cases.values())).title.split(",")[0] + " brought up to date")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def cost_by_size(outcomes: Outcomes, drawn: Any) -> Any | None:
    keys = [key for key in ("snapshot.full", "snapshot.sparse", "clone.full") if key in outcomes]
    if not keys:
        return None
    sizes = list(dict.fromkeys(name for key in reversed(keys) for name in outcomes[key].samples))
    sizes = max((list(outcomes[key].samples) for key in keys), key=len, default=sizes)
    figure, axis = drawn.subplots(figsize=(6.5, 4))
    for key in keys:
        points = [
            (sizes.index(name), m)
            for name in outcomes[key].samples
            if (m := outcomes[key].median(name)) is not None
        ]
        axis.plot(*zip(*points, strict=True), "o-", ms=4, label=outcomes[key].title)
    axis.set_xticks(range(len(sizes)), sizes)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("volume")
    axis.set_ylabel("milliseconds, durable")
    axis.set_title("cost against volume size")
    axis.legend(frameon=False)
    figure.tight_layout()
    return figure


PLOTS: dict[str, Callable[[Outcomes, Any], Any | None]] = {
    "random-read": lambda outcomes, drawn: speed_by_depth(outcomes, "randread", drawn),
    "random-overwrite": lambda outcomes, drawn: speed_by_depth(outcomes, "randwrite", drawn),
    "rebuild": rebuild_by_share,
    "cost-by-size": cost_by_size,
}


def draw(outcomes: Outcomes, directory: Path) -> list[str]:
    """PNG and SVG of every plot whose cases were measured; their names."""
    drawn = pyplot()
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for name, make in PLOTS.items():
        figure = make(outcomes, drawn)
        if figure is not None:
            figure.savefig(directory / f"{name}.png", dpi=110)
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
            drawn.close(figure)
            names.append(name)
    return names
