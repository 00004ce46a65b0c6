"""``python -m feldman`` is the command ``feldman``, where the package is there but not its script, as in a submitted job."""

from __future__ import annotations

from feldman.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
