"""The command line: `main` parses a command's flags and runs its steps."""

from dcai_ray.cli.main import main

__all__ = ["main"]
