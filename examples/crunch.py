"""Work for the processor: parse every module of this Python's standard library and find its most complex functions.

No executor is named, and worker processes do it: the first modules are parsed here and measured, and they compute. The
table shows it: several processes, and as many tasks at once as there are cores. Threads would be no faster, unless this
Python is a free-threaded build: parsing is Python code, and one thread at a time runs that.

A module goes out as a path and comes back as a few numbers, so nearly nothing travels. Modules differ a thousandfold
in size, and still no worker waits long for another. The library's own tests are left out: not every system has them.
"""

import ast
import heapq
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import NamedTuple

import fanmap
from _table import SMALL, Race

LIBRARY = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
MOST_COMPLEX = 10

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.comprehension)


class Function(NamedTuple):
    """A function, and in how many ways one can walk through it (McCabe, "A Complexity Measure", 1976)."""

    complexity: int
    name: str
    line: int
    module: str


class Module(NamedTuple):
    """What is kept of a module."""

    lines: int
    functions: int
    most_complex: list[Function]


def crunch(path: Path) -> Module:
    """Parse the module at `path` and weigh its functions."""
    source = path.read_bytes()
    module = str(path.relative_to(LIBRARY))
    weighed = complexities(ast.parse(source, path))
    found = [Function(ways, function.name, function.lineno, module) for function, ways in weighed.items()]
    return Module(source.count(b"\n"), len(found), heapq.nlargest(MOST_COMPLEX, found))


def complexities(tree: ast.AST) -> dict[ast.FunctionDef | ast.AsyncFunctionDef, int]:
    """For each function in `tree`: one, and one more for each place where it can go two ways.

    A nested function counts as its own, not to the one around it.
    """
    ways = {}
    ahead = [(tree, tree)]
    while ahead:
        node, inside = ahead.pop()
        if isinstance(node, FUNCTIONS):
            inside = node
            ways[node] = 1
        elif inside in ways:
            ways[inside] += turns(node)
        ahead.extend((child, inside) for child in ast.iter_child_nodes(node))
    return ways


def turns(node: ast.AST) -> int:
    """How many more ways there are because of `node`."""
    if isinstance(node, BRANCHES):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.Match):
        return len(node.cases)
    return 0


def report(modules: list[Module]) -> str:
    """The totals, and the most complex functions of all modules together."""
    lines, functions = sum(module.lines for module in modules), sum(module.functions for module in modules)
    most_complex = heapq.nlargest(MOST_COMPLEX, (function for module in modules for function in module.most_complex))
    listing = (f"{each.complexity:5}  {each.name}  ({each.module}:{each.line})" for each in most_complex)
    return "\n".join([f"{len(modules)} modules, {lines:,} lines, {functions:,} functions; the most complex:", *listing])


# Old modules hold escapes that the parser warns of; workers have the parent's warning filters.
warnings.simplefilter("ignore")
paths = [path for path in sorted(LIBRARY.rglob("*.py")) if LEFT_OUT.isdisjoint(path.relative_to(LIBRARY).parts)]
if SMALL:
    paths = paths[::4]
for path in paths:
    path.read_bytes()  # So that the first way is not the only one to wait for the disk.

race = Race()
serial = race.run("serial", map, crunch, paths)
chosen = race.run("fanmap.map", fanmap.map, crunch, paths)

assert chosen == serial
print(f"\n{report(serial)}")
print(race)
if getattr(sys, "_is_gil_enabled", lambda: True)():
    print("In this Python one thread at a time runs Python code.")
else:
    print("In this Python threads run Python code at the same time.")
fanmap.shutdown()
