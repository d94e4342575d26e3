"""The same program over threads, processes, Dask and Ray: `EXECUTOR=dask python anywhere.py`.

The job is that of `crunch.py` in short: parse every module of this Python's standard library, and count in how many
ways one can go through it. What runs elsewhere is `weigh` alone. It is sent there, with what it names; on a cluster of
several machines the path that it is given must be there as well.
"""

import ast
import os
import sys
import sysconfig
import warnings
from concurrent.futures import Executor
from pathlib import Path

import fanmap

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.comprehension)


def weigh(path: str) -> tuple[int, int]:
    """The lines and branches of a module."""
    warnings.simplefilter("ignore")  # Old modules hold escapes that the parser warns of.
    source = Path(path).read_bytes()
    return source.count(b"\n"), sum(isinstance(node, BRANCHES) for node in ast.walk(ast.parse(source)))


def executor(name: str) -> Executor:
    """Where to run. This is all that differs."""
    if name == "threads":
        return fanmap.ThreadPoolExecutor()
    if name == "processes":
        return fanmap.ProcessPoolExecutor()
    if name == "dask":
        from fanmap.dask import DaskExecutor

        return DaskExecutor()
    if name == "ray":
        from fanmap.ray import RayExecutor

        return RayExecutor()
    sys.exit(f"EXECUTOR={name} is none of threads, processes, dask, ray")


# Dask's workers import this file, as those of multiprocessing do.
if __name__ == "__main__":
    library = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(library.rglob("*.py")) if LEFT_OUT.isdisjoint(path.relative_to(library).parts)]
    if os.environ.get("FANMAP_DEMO") == "small":
        paths = paths[::10]

    where = os.environ.get("EXECUTOR", "processes")
    with executor(where) as pool:
        weighed = list(fanmap.map(weigh, map(str, paths), executor=pool))

    print(f"over {where}:")
    lines, branches = (sum(column) for column in zip(*weighed, strict=True))
    print(f"{len(paths)} modules, {lines:,} lines, {branches:,} branches; the most in one module:")
    for (_, count), path in sorted(zip(weighed, paths, strict=True), reverse=True, key=lambda pair: pair[0][1])[:5]:
        print(f"{count:6}  {path.relative_to(library)}")
