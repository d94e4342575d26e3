"""The process that takes one measurement: one peer, one workload. `driver` starts it.

    python -m comparison.runner WORKLOAD PEER RESULT SETTINGS

Writes to the file RESULT, as JSON, either `values`, the list of values of each figure, or `not_offered` with what the
peer has not got. Any other end is a failure, whose last words are on standard error. Spawned workers import this module
again, so it does nothing until it is called.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    from .peers.peer import NotOffered
    from .plan import Settings
    from .roster import ROSTER
    from .workloads import WORKLOADS

    name, peer, result, told = sys.argv[1:]
    settings = Settings(**json.loads(told))
    (workload,) = (one for one in WORKLOADS if one.name == name)
    entry = ROSTER[peer]
    if not workload.cold:
        entry.load()
    try:
        said: dict[str, object] = {
            "values": dict(workload.measure(lambda: entry.open(settings.workers), settings)),
        }
    except NotOffered as what:
        said = {"not_offered": str(what)}
    Path(result).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
