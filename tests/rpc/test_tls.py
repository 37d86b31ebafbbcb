"""TCP: only with TLS, and only for those who show a certificate of the authority."""

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from lvolfs.lvstore.store import Lvstore
from lvolfs.rpc.client import Client
from lvolfs.rpc.errors import RpcError
from lvolfs.rpc.tls import Credentials, parse_address, parse_url
from tests.command_line import LVOLFS, CommandLine

MIB = 1 << 20


@dataclass(frozen=True)
class Authority:
    """Certificates of its own, in files."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        folder.mkdir()
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        return cls(folder, ca)

    def issue(self, name: str) -> Credentials:
        certificate = self.ca.issue_cert(name)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for index, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(str(cert), append=index > 0)
        certificate.private_key_pem.write_to_path(str(key))
        return Credentials(str(cert), str(key), str(self.folder / "ca.pem"))


def options(credentials: Credentials) -> list[str]:
    return [
        f"--rpc-tls-cert={credentials.certificate}",
        f"--rpc-tls-key={credentials.key}",
        f"--rpc-tls-ca={credentials.authority}",
    ]


@dataclass(frozen=True)
class Served:
    url: str
    port: int
    log: Path
    authority: Authority
    commands: CommandLine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`lvolfs serve` of a store, on a port of the kernel's choice."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.make(folder / "ours")
    Lvstore.create(str(folder / "store"), size=512 * MIB).close()
    commands = CommandLine(folder)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                LVOLFS, "serve", folder / "store", "--rpc-socket", folder / "s", "--foreground",
                "--rpc-tcp", "127.0.0.1:0", *options(authority.issue("127.0.0.1")),
            ],
            env=commands.environment,
            stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while "listening on " not in (text := log.read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.02)
        address = next(word for word in text.split() if word.startswith("127.0.0.1:"))
        port = parse_address(address)[1]
        yield Served(f"tls://127.0.0.1:{port}", port, log, authority, commands)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_both_sides_show_certificates(served: Served) -> None:
    with Client(served.url, credentials=served.authority.issue("operator")) as client:
        assert client.call("lvolfs_get_store")["name"] == "lvs0"
        # Many replies, and one larger than any record of TLS.
        numbers = [client.send("rpc_get_methods") for _ in range(300)]
        assert all(len(client.result(number)) > 60 for number in numbers)
        for each in range(200):
            client.call("lvolfs_create_volume", name=f"v{each}", size=MIB)
        assert len(client.call("lvolfs_get_lvols")) == 200
        with pytest.raises(RpcError, match="there is no lvol"):
            client.call("lvolfs_get_lvol", name="lvs0/none")
    assert "organizationName=trustme" in served.log.read_text()  # who it was


def test_the_command_line_reaches_it(served: Served, tmp_path: Path) -> None:
    mine = options(served.authority.issue("operator"))
    found = served.commands.run("--rpc-socket", served.url, *mine, "info", "any", "--json")
    assert json.loads(found)["name"] == "lvs0"
    missing = served.commands.run("--rpc-socket", served.url, "info", "any", status=1)
    assert "--rpc-tls-cert" in missing
    half = served.commands.run("--rpc-socket", served.url, mine[0], "info", "any", status=2)
    assert "together" in half


def test_a_stranger_gets_nowhere(served: Served, tmp_path: Path) -> None:
    theirs = Authority.make(tmp_path / "theirs")
    foreign = theirs.issue("operator")
    ours = served.authority.issue("operator")

    # Not signed by the authority that the daemon knows.
    with pytest.raises(ConnectionError, match=r"has not signed|unknown ca"):
        call(served, Credentials(foreign.certificate, foreign.key, ours.authority))
    # A daemon whose certificate this side does not know.
    with pytest.raises(ConnectionError, match="other side's certificate is not accepted"):
        call(served, Credentials(ours.certificate, ours.key, foreign.authority))
    # No certificate at all.
    context = ssl.create_default_context(cafile=ours.authority)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        talk(served, context)
    # No TLS.
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as peer:
        peer.sendall(b'{"id":1,"method":"framework_wait_init"}')
        assert b"result" not in peer.recv(4096)
    # A name that is not in the daemon's certificate.
    with pytest.raises(ConnectionError, match="not valid for 'localhost'"):
        Client(f"tls://localhost:{served.port}", credentials=ours)
    # Everybody else is served all the while.
    call(served, ours)
    assert "is refused" in served.log.read_text()


def call(served: Served, credentials: Credentials) -> None:
    with Client(served.url, credentials=credentials, timeout=20) as client:
        assert client.call("framework_wait_init") is True


def talk(served: Served, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
    ):
        peer.sendall(b'{"id":1,"method":"framework_wait_init"}')
        while data := peer.recv(4096):
            assert b"result" not in data
        raise ConnectionError("it hung up")


def test_a_client_that_says_nothing_does_not_hold_up_others(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(50)]
    try:
        call(served, served.authority.issue("operator"))
    finally:
        for each in idle:
            each.close()


@pytest.mark.parametrize("command", ["serve", "mount"])
def test_no_tcp_without_certificates(served: Served, tmp_path: Path, command: str) -> None:
    store = tmp_path / "store"
    Lvstore.create(str(store), size=32 * MIB).close()
    where = [tmp_path] if command == "mount" else ["--rpc-socket", tmp_path / "s"]
    base = [command, store, *where]
    mine = options(served.authority.issue("127.0.0.1"))
    for wrong in (["--rpc-tcp", "127.0.0.1:0"], mine, ["--rpc-tcp", "127.0.0.1:0", *mine[:2]]):
        assert "together" in served.commands.run(*base, *wrong, status=2)
    tcp = ["--rpc-tcp", "127.0.0.1:0"]
    absent = [*mine[:2], f"--rpc-tls-ca={tmp_path}/none"]
    assert "none" in served.commands.run(*base, *tcp, *absent, status=1)
    swapped = [mine[0], f"--rpc-tls-key={mine[0].partition('=')[2]}", mine[2]]
    assert "PEM" in served.commands.run(*base, *tcp, *swapped, status=1)
    bad = served.commands.run(*base, "--rpc-tcp", "nowhere", *mine, status=1)
    assert "is not HOST:PORT" in bad
    taken = served.commands.run(*base, "--rpc-tcp", f"127.0.0.1:{served.port}", *mine, status=1)
    assert f"cannot listen on 127.0.0.1:{served.port}" in taken
    assert not os.path.ismount(tmp_path)
    Lvstore.open(str(store)).close()


def test_addresses() -> None:
    assert parse_address("[::1]:70") == ("::1", 70)
    assert parse_url("tls://host.example:7000") == ("host.example", 7000)
    assert parse_url("/run/s") is None
    for wrong in ("host", "host:", "host:99999", ":70", "a:b:c", "user@host:1", "host:1/x", "::1"):
        with pytest.raises(OSError, match="is not HOST:PORT"):
            parse_address(wrong)
