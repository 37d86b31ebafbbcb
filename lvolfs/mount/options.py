"""Mount options: what `-o` takes."""

import errno
from dataclasses import dataclass
from typing import Literal, cast, get_args

Transport = Literal["auto", "dev", "uring"]

# Of mount(8), fstab and systemd; they mean nothing here, or are on in any case.
_IGNORED = frozenset(
    {
        "rw",
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "_netdev",
        "nofail",
        "nosuid",
        "nodev",
        "dev",
        "suid",
        "exec",
        "async",
        "relatime",
        "default_permissions",
    }
)
# Handed on to the kernel as they are.
_PASSED = frozenset({"noexec", "noatime", "sync", "dirsync"})


@dataclass(frozen=True)
class MountOptions:
    """threads: of the lane, None = twice the processors, at least 4. max_background: how many
    asynchronous requests the kernel keeps in flight. page_cache: reads go through the kernel's
    page cache, as they do in any case on kernels before 6.6; writes still go through at once.
    transport: how requests come from the kernel, by reads of /dev/fuse or through io_uring;
    auto takes what measured better over all loads, which is reads."""

    read_only: bool = False
    allow_other: bool = False
    threads: int | None = None
    max_background: int = 256
    page_cache: bool = False
    passed: tuple[str, ...] = ()
    transport: Transport = "auto"

    @classmethod
    def parse(cls, text: str) -> "MountOptions":
        """From ro,allow_other,threads=8. OSError(EINVAL) for what is not known."""
        read_only = allow_other = page_cache = False
        threads: int | None = None
        max_background = 256
        passed = []
        transport: Transport = "auto"
        for option in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = option.partition("=")
            if name == "ro":
                read_only = True
            elif name == "rw":
                read_only = False
            elif name == "allow_other":
                allow_other = True
            elif name == "page_cache":
                page_cache = True
            elif name == "threads":
                threads = _number(option, value, 64)
            elif name == "max_background":
                max_background = _number(option, value, 65535)
            elif name == "transport":
                if value not in get_args(Transport):
                    raise OSError(
                        errno.EINVAL,
                        f"mount option {option!r}: there are {', '.join(get_args(Transport))}",
                    )
                transport = cast("Transport", value)
            elif name in _PASSED:
                passed.append(option)
            elif name not in _IGNORED and not name.startswith(("x-", "comment")):
                raise OSError(
                    errno.EINVAL,
                    f"mount option {option!r} is not known; there are ro, allow_other, "
                    "page_cache, threads=N, max_background=N, transport=auto|dev|uring and "
                    f"{', '.join(sorted(_PASSED))}",
                )
        return cls(
            read_only, allow_other, threads, max_background, page_cache, tuple(passed), transport
        )

    def for_fuse(self, store_path: str, *, read_only: bool) -> str:
        """As libfuse and fusermount3 take them."""
        # Commas and backslashes in the source would end it.
        source = store_path.replace("\\", "\\\\").replace(",", "\\,")
        parts = [f"fsname={source}", "subtype=lvolfs", "nosuid", "nodev", *self.passed]
        if self.allow_other:
            # On a private mount the kernel lets the owner in and nobody else, and the owner
            # may set xattrs of snapshots although these cannot be written.
            parts += ["allow_other", "default_permissions"]
        if read_only:
            parts.append("ro")
        return ",".join(parts)


def _number(option: str, value: str, most: int) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise OSError(errno.EINVAL, f"mount option {option!r}: give a number from 1 to {most}")
    return int(value)
