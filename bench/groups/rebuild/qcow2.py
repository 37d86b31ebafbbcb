"""QEMU: blockdev-backup of what a dirty bitmap has noted, from one qcow2 image to another."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

from bench.case import Sample
from bench.content import Content, scattered
from bench.processes import ProgramError, daemon, execute, mounted
from bench.settings import MIB


class Monitor:
    """A QMP connection: commands, and waiting for an event."""

    def __init__(self, path: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(300)
        self.connection.connect(str(path))
        self.lines = self.connection.makefile("r")
        json.loads(self.lines.readline())
        self.events: list[dict[str, Any]] = []
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: Any) -> Any:
        words = {"execute": command, "arguments": arguments}
        self.connection.sendall(json.dumps(words).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise ProgramError(f"QMP {command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def job_ended(self, job: str) -> None:
        while True:
            for event in self.events:
                data = event["data"]
                if event["event"] == "BLOCK_JOB_COMPLETED" and data["device"] == job:
                    self.events.clear()
                    if "error" in data:
                        raise ProgramError(f"QEMU's job {job}: {data['error']}")
                    return
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)

    def close(self) -> None:
        self.lines.close()
        self.connection.close()


class DirtyBitmap:
    """The bitmap notes what is written by the FUSE export; a running daemon copies it.

    Writes go through the export one at a time: with more its qcow2 corrupts (QEMU 7.2).
    """

    def open(self, directory: Path, size: int) -> None:
        self.size = size
        self.stack = contextlib.ExitStack()
        self.images = [directory / "source.qcow2", directory / "replica.qcow2"]
        options = "cluster_size=1M,lazy_refcounts=on"
        content = directory / "content"
        Content().fill(content, size)
        for image in self.images:
            execute("qemu-img", "convert", "-O", "qcow2", "-o", options, content, image)
            execute("sync", image)
        content.unlink()
        export, monitor = directory / "export", directory / "qmp"
        export.touch()
        self.export = export
        nodes = [
            word
            for name, image in zip(("source", "replica"), self.images, strict=True)
            for word in (
                "--blockdev",
                f"driver=file,node-name={name}-file,filename={image}",
                "--blockdev",
                f"driver=qcow2,node-name={name},file={name}-file,l2-cache-size=67108864",
            )
        ]
        self.stack.enter_context(
            daemon(
                "qemu-storage-daemon",
                *nodes,
                "--export",
                f"type=fuse,id=export,node-name=source,mountpoint={export},writable=on",
                "--chardev",
                f"socket,id=monitor,path={monitor},server=on,wait=off",
                "--monitor",
                "chardev=monitor",
                ready=lambda: monitor.exists() and mounted(export),
            )
        )
        self.monitor = Monitor(monitor)
        self.stack.callback(self.monitor.close)
        self.monitor.call("block-dirty-bitmap-add", node="source", name="changed", granularity=MIB)

    def change(self, share: float, seed: int) -> int:
        numbers = scattered(self.size // MIB, share, seed)
        Content().write_blocks(self.export, numbers)
        return len(numbers) * MIB

    def update(self) -> Sample:
        start = time.monotonic()
        self.monitor.call(
            "blockdev-backup",
            **{"job-id": "delta", "device": "source", "target": "replica"},
            sync="incremental",
            bitmap="changed",
        )
        self.monitor.job_ended("delta")
        execute("sync", self.images[1])
        return {"value": time.monotonic() - start}

    def verify(self) -> None:
        execute("qemu-img", "compare", "-U", *self.images)

    def close(self) -> None:
        self.stack.close()
