"""`runner` as a program that computes: its main module imports numpy at its top, as such programs do.

So workers that import the main module again (spawn, forkserver) import numpy too, and those that do not, do not.
"""

from __future__ import annotations

import numpy  # noqa: F401

from .runner import main

if __name__ == "__main__":
    main()
