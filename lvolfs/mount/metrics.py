"""What the lane of a mount has counted, for Prometheus."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from lvolfs._native.lane import Lane

# Opcodes of the FUSE protocol that a mount sees.
OPERATIONS = {
    1: "lookup",
    2: "forget",
    3: "getattr",
    4: "setattr",
    5: "readlink",
    6: "symlink",
    8: "mknod",
    9: "mkdir",
    10: "unlink",
    11: "rmdir",
    12: "rename",
    13: "link",
    14: "open",
    15: "read",
    16: "write",
    17: "statfs",
    18: "release",
    20: "fsync",
    21: "setxattr",
    22: "getxattr",
    23: "listxattr",
    24: "removexattr",
    25: "flush",
    26: "init",
    27: "opendir",
    28: "readdir",
    29: "releasedir",
    30: "fsyncdir",
    34: "access",
    35: "create",
    36: "interrupt",
    37: "bmap",
    38: "destroy",
    39: "ioctl",
    40: "poll",
    42: "batch_forget",
    43: "fallocate",
    44: "readdirplus",
    45: "rename2",
    46: "lseek",
    47: "copy_file_range",
    50: "syncfs",
    51: "tmpfile",
    52: "statx",
    53: "copy_file_range_64",
}


class LaneCollector(Collector):
    """FUSE requests, their errors, bytes and open files."""

    def __init__(self, lane: "Lane") -> None:
        self._lane = lane

    def collect(self) -> Iterable[Metric]:
        counters = self._lane.counters()
        for name, text, values in (
            ("lvolfs_requests", "FUSE requests", counters["requests"]),
            ("lvolfs_request_errors", "Requests that the lane failed", counters["errors"]),
        ):
            family = CounterMetricFamily(name, text, labels=["op"])
            for opcode, count in sorted(values.items()):
                family.add_metric([OPERATIONS.get(opcode, str(opcode))], count)
            yield family
        yield CounterMetricFamily(
            "lvolfs_read_bytes", "Bytes read from volumes", value=counters["bytes_read"]
        )
        yield CounterMetricFamily(
            "lvolfs_written_bytes", "Bytes written to volumes", value=counters["bytes_written"]
        )
        yield GaugeMetricFamily(
            "lvolfs_open_handles", "Open volume and snapshot files", value=self._lane.open_handles
        )
