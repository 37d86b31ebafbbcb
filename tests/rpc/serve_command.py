"""`lvolfs serve` on a socket of its own, and the commands that find its stores."""

from pathlib import Path

from tests.command_line import CommandLine
from tests.rpc.target_process import end_daemon


class ServeCommand(CommandLine):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.socket = folder / "s"

    def serve(self, *arguments: str | Path, status: int = 0) -> str:
        log = self.folder / "log"
        return self.run(
            "serve", "--rpc-socket", self.socket, "--log", log, *arguments, status=status
        )

    def end(self) -> None:
        if self.socket.exists():
            end_daemon(str(self.socket))
            assert not self.socket.exists()
