"""The short form of `chaos.py`: one pool, twenty thousand tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_pool_whose_processes_are_killed_all_the_time_gives_every_item_one_outcome() -> None:
    chaos = Path(__file__).with_name("chaos.py")
    command = [sys.executable, str(chaos), "--seeds", "1", "--small", "20000", "--large", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "survived" in done.stdout
