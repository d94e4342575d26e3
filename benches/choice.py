"""What `fanmap.map` chooses, beside what it could have chosen: kinds of work, done in the calling thread, over threads,
over processes, and with no executor named.

Each measurement is a fresh interpreter, so the start of a pool is in it; imports and a program's first map, over three
items in the calling thread, are not. Ways take turns, and the median of the rounds counts. "auto / best" is by the best
of the other three, which nobody knows beforehand.

    python benches/choice.py [--only NAME,...] [--rounds 3] [--save]
"""

import argparse
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from _results import RESULTS, circumstances, save

WAYS = ("map", "serial", "threads", "processes", "auto")
LONG = 1.0
"""Seconds from which on the work is long: auto is to be within `NEAR` of the best, below within `HAIR` of `map`."""
NEAR, HAIR, HAIR_SECONDS = 1.15, 1.05, 50e-6


def spin(rounds: int) -> int:
    """Python code; a round is about 40 ns."""
    total = 0
    for k in range(rounds):
        total += k & 3
    return total


def microsecond(_: int) -> int:
    return spin(20)


def fifty_microseconds(_: int) -> int:
    return spin(1100)


def five_milliseconds(_: int) -> int:
    return spin(110_000)


def half_a_second(_: int) -> int:
    return spin(11_000_000)


def digest(size: int) -> str:
    """It releases the interpreter's lock."""
    return hashlib.sha256(bytes(size)).hexdigest()


def sort(seed: int) -> float:
    """numpy, which releases it."""
    import numpy as np

    values = np.random.default_rng(seed).random(400_000)
    values.sort()
    return float(values[1000])


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fetch(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    size = len(connection.getresponse().read())
    connection.close()
    return size


def look_into(data: bytes) -> int:
    return data[::64].count(0)


def lay_out(size: int) -> list[float]:
    return [float(k) for k in range(size)]


_lock = threading.Lock()


def guarded(rounds: int) -> int:
    with _lock:
        return 0 if rounds < 0 else spin(rounds)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page " * 1000)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    # As servers have it. Of more connections at once than wait here the system drops some, and tries again in a second.
    request_queue_size = 128


def _site() -> int:
    server = _Server(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Kind(NamedTuple):
    fn: Callable[[Any], Any]
    items: Callable[[], Iterable[Any]]
    # How many results are asked for; all, if that is None.
    taken: int | None = None
    # Whether worker processes can have it.
    sendable: bool = True


KINDS: dict[str, Kind] = {
    "1 us of Python, 1,000,000": Kind(microsecond, lambda: range(1_000_000)),
    "1 us of Python, 1,000": Kind(microsecond, lambda: range(1000)),
    "50 us of Python, 30,000": Kind(fifty_microseconds, lambda: range(30_000)),
    "5 ms of Python, 300": Kind(five_milliseconds, lambda: range(300)),
    "numpy, which releases the lock, 60": Kind(sort, lambda: range(60)),
    "sleep of 20 ms, 100": Kind(nap, lambda: [0.02] * 100),
    "HTTP, 20 ms, 100": Kind(fetch, lambda: [_site()] * 100),
    "inputs of 4 MB, 400": Kind(look_into, lambda: [bytes([k % 7]) * 4_000_000 for k in range(8)] * 50),
    "outputs of 60,000 floats, 300": Kind(lay_out, lambda: [60_000] * 300),
    "skewed: 400 of 1 ms, 4 of 250 ms": Kind(spin, lambda: ([25_000] * 100 + [6_000_000]) * 4),
    "3 items of half a second": Kind(half_a_second, lambda: range(3)),
    "1 item of half a second": Kind(half_a_second, lambda: range(1)),
    "endless, 5 ms, 250 taken": Kind(five_milliseconds, itertools.count, 250),
    "unpicklable, 2 ms, 600": Kind(guarded, lambda: [45_000] * 600, sendable=False),
}


def measure(name: str, way: str) -> float:
    """Seconds for it, in this process."""
    import fanmap

    kind = KINDS[name]
    if "numpy" in name:
        import numpy  # noqa: F401 - it is no part of the work
    run: Any = map if way == "map" else fanmap.map
    # What only a program's first map does, imports above all, is no part of the work. A plain map has it as well: a
    # long loop of Python's is some percent slower in a program that has more objects, whatever they are.
    list(fanmap.map(abs, range(3)))
    list(run(abs, range(3)))
    items = kind.items()
    began = time.perf_counter()
    results: Any = run(kind.fn, items) if way == "map" else run(kind.fn, items, executor=way)
    for _ in itertools.islice(results, kind.taken):
        pass
    if way != "map":
        results.close()
    seconds = time.perf_counter() - began
    if way != "map":
        fanmap.shutdown()
    return seconds


def measure_afresh(name: str, way: str) -> float:
    command = [sys.executable, __file__, "--measure", name, "--way", way]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=place, timeout=120)
    return float(json.loads(done.stdout))


def row(name: str, seconds: dict[str, float]) -> list[str]:
    best = min(seconds[way] for way in ("serial", "threads", "processes") if way in seconds)
    ratio = seconds["auto"] / best
    if seconds["map"] >= LONG:
        met = ratio <= NEAR
    elif min(seconds, key=seconds.__getitem__) in ("map", "serial", "auto"):
        met = seconds["auto"] <= max(seconds["map"] * HAIR, seconds["map"] + HAIR_SECONDS)
    else:
        met = True
    cells = [shown(seconds[way]) if way in seconds else "-" for way in WAYS]
    return [name, *cells, f"{ratio:.2f}" + ("" if met else ", not met")]


def shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def page(figures: dict[str, dict[str, float]]) -> str:
    """The table in Markdown."""
    told: Any = circumstances()
    rows = [["work", "`map`", "serial", "threads", "processes", "auto", "auto / best"]]
    rows += [row(name, seconds) for name, seconds in figures.items()]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    python = told["versions"]["python"].split()[0]
    machine = f"{told['machine']['processor']}, {told['machine']['cores']} cores"
    return "\n".join([f"{told['date'][:10]}, {machine}, Python {python}; medians.", "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="kinds whose names contain one of these, between commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep figures and table in benches/results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.way)))
        return
    wanted = options.only.split(",") if options.only else [""]
    figures: dict[str, dict[str, float]] = {}
    for name, kind in KINDS.items():
        if not any(part in name for part in wanted):
            continue
        taken: dict[str, list[float]] = {way: [] for way in WAYS if kind.sendable or way != "processes"}
        for _ in range(options.rounds):
            for way, values in taken.items():
                values.append(measure_afresh(name, way))
        figures[name] = {way: statistics.median(values) for way, values in taken.items()}
        print(" | ".join(row(name, figures[name])), flush=True)
    if options.save:
        save("choice", {"seconds": figures})
        (RESULTS / "choice.md").write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
