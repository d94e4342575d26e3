"""The first lesson: a plain `map`, made parallel over threads and over processes.

The records are immutable and `transform` only returns something new, so it does not matter who handles which record,
or when: the results are the same, in the same order. Note what is *not* here: no locks, no queues, no
`if __name__ == "__main__"`.
"""

import os
import threading
import time
from typing import NamedTuple

import fanmap
from _table import SMALL, Race

MOMENT = 0.02 if SMALL else 0.25


class Scientist(NamedTuple):
    name: str
    born: int
    field: str
    nobel: bool


SCIENTISTS = (
    Scientist("Ada Lovelace", 1815, "mathematics", False),
    Scientist("Marie Curie", 1867, "physics", True),
    Scientist("Emmy Noether", 1882, "mathematics", False),
    Scientist("Vera Rubin", 1928, "astronomy", False),
    Scientist("Tu Youyou", 1930, "medicine", True),
    Scientist("Ada Yonath", 1939, "chemistry", True),
    Scientist("Jocelyn Bell Burnell", 1943, "astronomy", False),
    Scientist("Sally Ride", 1951, "physics", False),
)


def transform(scientist: Scientist) -> dict[str, object]:
    """The same scientist with an age instead of a birth; works a moment, as if it asked a server."""
    # One write a line, so that lines of several workers do not mix.
    print(f"  process {os.getpid()} {threading.current_thread().name}: {scientist.name}\n", end="", flush=True)
    time.sleep(MOMENT)
    return {"name": scientist.name, "age_in_2000": 2000 - scientist.born}


race = Race()
serial = race.run("serial", map, transform, SCIENTISTS)
threads = race.run("threads", fanmap.map, transform, SCIENTISTS, executor="threads", workers=4)
processes = race.run("processes", fanmap.map, transform, SCIENTISTS, executor="processes", workers=4)

assert threads == serial
assert processes == serial
print(race)
fanmap.shutdown()
