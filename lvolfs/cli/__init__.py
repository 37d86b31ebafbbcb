"""The `lvolfs` command. One module per group of verbs; `main` turns errors into exit statuses."""

from lvolfs.cli.main import main

__all__ = ["main"]
