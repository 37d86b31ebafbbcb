"""`python -m bench`: measures, prints a table, keeps the figures as JSON."""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import cases, measurement
from bench.scene import set_scene
from lvolfs import __version__


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--seconds", type=float, default=2, help="of each fio run (default: 2)")
    parser.add_argument("--size", type=int, default=512, help="of the volume in MiB (default: 512)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()

    progress = Console(stderr=True)
    with set_scene(options.size << 20) as scene:
        chosen = cases.data_cases(scene, options.seconds) + cases.delta_cases(scene)
        measurement.run(chosen, options.rounds, progress)

    machine = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    Console(width=None if sys.stdout.isatty() else 140).print(measurement.table(chosen))
    print(f"lvolfs {__version__}, {machine['cpus']} CPUs, Linux {machine['kernel']}")
    if options.json:
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "machine": machine,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "size": options.size << 20,
            "cases": [case.document() for case in chosen],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
