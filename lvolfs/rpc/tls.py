"""Mutual TLS: the only way to a daemon over TCP.

Each side shows a certificate and accepts any that the other side's certificate authority has
signed. So the authority is the list of who may control a daemon: give it to nothing else.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

SCHEME = "tls"


@dataclass(frozen=True)
class Credentials:
    """Paths of PEM files: one's own certificate (chain) and its key, and the authority whose
    certificates are accepted from the other side."""

    certificate: str
    key: str
    authority: str

    def server_context(self) -> "ssl.SSLContext":
        """Clients without a certificate of the authority do not get past the handshake."""
        import ssl  # here and below: commands that do not need it need not wait for it

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> "ssl.SSLContext":
        """The server's name or address has to be in its certificate."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        return context

    def _load(self, context: "ssl.SSLContext") -> None:
        import ssl

        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in (self.certificate, self.key, self.authority):
            with Path(path).open("rb"):
                pass  # ssl does not say which file is missing
        try:
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise OSError(
                errno.EINVAL,
                f"{self.certificate} and {self.key} are not a PEM certificate and its key: "
                f"{error.reason or error}",
            ) from error
        try:
            context.load_verify_locations(cafile=self.authority)
        except ssl.SSLError as error:
            raise OSError(
                errno.EINVAL,
                f"{self.authority} holds no PEM certificate of an authority: "
                f"{error.reason or error}",
            ) from error


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [::1]:PORT; the port may be 0 for a listener. OSError(EINVAL)."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.path or parts.username is not None:
        raise OSError(errno.EINVAL, f"{text!r} is not HOST:PORT")
    return host, port


def parse_url(text: str) -> tuple[str, int] | None:
    """(host, port) of tls://HOST:PORT; None for what is no such URL."""
    prefix = f"{SCHEME}://"
    return parse_address(text[len(prefix) :]) if text.startswith(prefix) else None


def explain(error: "ssl.SSLError") -> str:
    """Why a handshake failed, in one sentence."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other side's certificate is not accepted: {error.verify_message}"
    return (error.reason or os.strerror(errno.EPROTO)).replace("_", " ").lower()
