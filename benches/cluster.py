"""`RayExecutor` and `DaskExecutor` beside what Ray and Dask have themselves, in one run on this machine.

20,000 tiny calls, and 64 of 20 ms that wait, five times each in turns; the figure is the median. `make bench-cluster`
runs it, with Ray and Dask, and keeps the figures. By hand:

    PYTHONPATH=python .venv-cluster/bin/python benches/cluster.py [--save] [ray] [dask]

`ray.remote` and `Client.map` get a tenth of the tiny calls, for 20,000 take them up to a minute: their times are
multiplied. Ray's Pool has its turns after the others, for its actors take the cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import fanmap
from _results import RESULTS, headline, save, table, version

TINY, NAPS = 20_000, 64


def tiny(x: int) -> int:
    """Next to nothing."""
    return 2 * x


def nap(x: int) -> int:
    """Waits for 20 ms."""
    time.sleep(0.02)
    return x


JOBS: dict[str, tuple[Callable[[int], int], int]] = {"tiny": (tiny, TINY), "naps": (nap, NAPS)}
Run = Callable[[Callable[[int], int], range], object]


def measured(ways: dict[str, tuple[Run, int]]) -> dict[str, dict[str, float]]:
    """The median seconds of each way for each job. A way says by how much tiny calls are fewer for it."""
    found: dict[str, dict[str, float]] = {way: {} for way in ways}
    for job, (fn, count) in JOBS.items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(6):  # the first time is for warming up
            for way, (run, fewer) in ways.items():
                part = fewer if job == "tiny" else 1
                began = time.perf_counter()
                run(fn, range(count // part))
                times[way].append((time.perf_counter() - began) * part)
        for way in ways:
            found[way][job] = statistics.median(times[way][1:])
    return found


def over_ray() -> dict[str, dict[str, float]]:
    """Ray's remote functions, our executor, and Ray's Pool last, whose actors take the cores."""
    import ray
    from fanmap.ray import RayExecutor
    from ray.util.multiprocessing import Pool

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    remote: dict[Any, Any] = {fn: ray.remote(fn) for fn in (tiny, nap)}
    with RayExecutor() as pool:
        found = measured(
            {
                "RayExecutor": (lambda fn, items: list(fanmap.map(fn, items, executor=pool)), 1),
                "ray.remote": (lambda fn, items: ray.get([remote[fn].remote(item) for item in items]), 10),
            }
        )
    with Pool(2) as rays:
        found.update(measured({"ray.util.multiprocessing.Pool": (lambda fn, items: rays.map(fn, items), 1)}))
    ray.shutdown()
    return found


def over_dask() -> dict[str, dict[str, float]]:
    """Our executor, and the client's own map."""
    from distributed import Client
    from fanmap.dask import DaskExecutor

    with (
        Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client,
        DaskExecutor(client) as pool,
    ):
        # Without `pure=False` equal calls are made once.
        own: Any = lambda fn, items: client.gather(client.map(fn, items, pure=False))  # noqa: E731
        return measured(
            {
                "DaskExecutor": (lambda fn, items: list(fanmap.map(fn, items, executor=pool)), 1),
                "Client.map": (own, 10),
            }
        )


def main() -> None:
    """Measure, show, and keep."""
    wanted = [name for name in sys.argv[1:] if not name.startswith("-")] or ["ray", "dask"]
    found: dict[str, dict[str, float]] = {}
    for name in wanted:
        found.update(over_ray() if name == "ray" else over_dask())
    rows = [(way, *(f"{seconds:.3f}" for seconds in times.values())) for way, times in found.items()]
    head = ("seconds", "20,000 tiny calls", "64 that wait for 20 ms")
    print(table([head, *rows]))
    if "--save" in sys.argv:
        packages = {name: version(name) for name in ("ray", "distributed")}
        save("cluster", {"packages": packages, "seconds": found})
        where = f"{headline(fanmap.__version__)}, Ray {packages['ray']}, Dask {packages['distributed']}"
        lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * 3, *rows)]
        text = "\n".join(["<!-- made by benches/cluster.py -->", f"{where}; two workers.", "", *lines, ""])
        (RESULTS / "cluster.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
