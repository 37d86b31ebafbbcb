"""Where a daemon listens for JSON-RPC and whom it lets in: the options of mount and serve, and
of every command that talks to one."""

import grp
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lvolfs.cli.failure import CommandFailedError
from lvolfs.rpc.tls import Credentials, parse_address

if TYPE_CHECKING:
    from lvolfs.rpc.server import TlsListener

RpcGroup = Annotated[
    str | None,
    typer.Option(metavar="GROUP", help="Let processes of this group in, too (mode 0660)."),
]
RpcTcp = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Listen there, too; with mutual TLS only."),
]
TlsCert = Annotated[
    str | None, typer.Option(metavar="FILE", help="The certificate to show (PEM, with its chain).")
]
TlsKey = Annotated[str | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")]
TlsCa = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The other side has to show a certificate signed by this."),
]


@dataclass(frozen=True)
class Listening:
    """What was asked for, checked: socket None is only the private one of each store."""

    socket: str | None = None
    group: int | None = None
    address: tuple[str, int] | None = None
    credentials: Credentials | None = None

    @property
    def is_default(self) -> bool:
        return self == Listening()

    def tls(self) -> "TlsListener | None":
        """Reads the certificates. OSError names a file that is missing or holds none."""
        if self.address is None or self.credentials is None:
            return None
        from lvolfs.rpc.server import TlsListener

        return TlsListener(*self.address, self.credentials.server_context())


def parse_listening(
    socket: str | None,
    group: str | None,
    tcp: str | None,
    tls: tuple[str | None, str | None, str | None],
) -> Listening:
    if group is not None and socket is None:
        raise typer.BadParameter(
            "--rpc-group needs --rpc-socket: the socket that is there in any case is private"
        )
    credentials = parse_credentials(*tls)
    if (tcp is None) != (credentials is None):
        raise typer.BadParameter(
            "--rpc-tcp and --rpc-tls-cert, --rpc-tls-key, --rpc-tls-ca go together: there is no "
            "TCP without both sides showing certificates"
        )
    return Listening(
        os.path.abspath(socket) if socket is not None else None,  # noqa: PTH100
        _group_id(group) if group is not None else None,
        parse_address(tcp) if tcp is not None else None,
        credentials,
    )


def parse_credentials(
    certificate: str | None, key: str | None, authority: str | None
) -> Credentials | None:
    """All three, or none."""
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter("give --rpc-tls-cert, --rpc-tls-key and --rpc-tls-ca together")
    paths = (os.path.abspath(path) for path in (certificate, key, authority))  # noqa: PTH100
    return Credentials(*paths)


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise CommandFailedError(f"there is no group {name!r}; see: getent group") from None
