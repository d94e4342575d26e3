"""Holds the order of the engine's layers: imports in crates/fanmap run only one way.

ARCHITECTURE.md has the order, in its one fence marked `layers`: a module a line, lowest first, then what it is. A
module may name itself and those above its own line. `make lint` runs this; `tests/test_layers.py` tests it.

What counts as naming: `crate::name` anywhere in code (imports, paths, grouped `use crate::{a, b}`), and a
`use super::...` at the start of a line that climbs to the crate's root. Comments do not count: a doc link upward
imports nothing. lib.rs, the table of contents, may name everything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = "ARCHITECTURE.md"
SOURCES = "crates/fanmap/src"

FENCE = re.compile(r"^```layers\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE_COMMENT = re.compile(r"(?<!:)//[^\n]*")
CRATE_PATH = re.compile(r"(?<![$\w])crate::")
SUPER_PATH = re.compile(r"^(?:pub(?:\([^)]*\))? )?use ((?:super::)+)", re.MULTILINE)
NAME = re.compile(r"\s*(?:r#)?(\w+)(!?)")


def read_order(page: str) -> list[str]:
    """The modules of the page's `layers` fence, lowest first. ValueError unless there is exactly one such fence."""
    fences = FENCE.findall(page)
    if len(fences) != 1:
        raise ValueError(f"{PAGE} needs one fence marked `layers`, and has {len(fences)}")
    return [line.split()[0] for line in fences[0].splitlines() if line.strip()]


def depth_of(file: Path) -> int:
    """How many modules below the crate's root a file's module is: `queue.rs` and `map/mod.rs` 1, `map/window.rs` 2."""
    return len(file.parts) - (file.name == "mod.rs")


def names_at(code: str, start: int) -> Iterator[str]:
    """The first names of the path that goes on at `start`: one, or each of a braced group's."""
    if code[start : start + 1] != "{":
        name = NAME.match(code, start)
        if name and not name[2]:  # an exported macro lives at the crate's root, whatever its module
            yield name[1]
        return
    depth = 0
    for token in re.finditer(r"[{},]", code[start:]):
        depth += {"{": 1, "}": -1, ",": 0}[token[0]]
        if depth == 0:
            return
        if depth == 1 and token[0] != "}":
            name = NAME.match(code, start + token.end())
            if name:
                yield name[1]


def named_modules(code: str, depth: int) -> Iterator[tuple[int, str]]:
    """The line, and the name of each child of the crate's root, that a file `depth` modules below the root names."""
    code = LINE_COMMENT.sub("", code)
    starts = [match.end() for match in CRATE_PATH.finditer(code)]
    starts += [match.end() for match in SUPER_PATH.finditer(code) if match[1].count("super::") == depth]
    for start in sorted(starts):
        for name in names_at(code, start):
            yield code.count("\n", 0, start) + 1, name


def violations(order: list[str], sources: Path) -> Iterator[str]:
    """A sentence for each place under `sources` that breaks the order, with `file:line` first."""
    rank = {name: index for index, name in enumerate(order)}
    for file in sorted(sources.rglob("*.rs")):
        inside = file.relative_to(sources)
        layer = inside.parts[0].removesuffix(".rs")
        if inside.parts[0] == "lib.rs":
            continue
        where = f"{SOURCES}/{inside.as_posix()}"
        if layer not in rank:
            yield f"{where}: the module `{layer}` has no place in {PAGE}'s order of layers"
            continue
        for line, name in named_modules(file.read_text(encoding="utf-8"), depth_of(inside)):
            if name not in rank:
                yield (
                    f"{where}:{line}: `crate::{name}` is no layer of {PAGE}'s order; "
                    "name the module that the thing lives in, not its re-export"
                )
            elif rank[name] > rank[layer]:
                yield f"{where}:{line}: `{layer}` names `{name}`, a layer above it; imports run only downward"


def main() -> int:
    found = list(violations(read_order((ROOT / PAGE).read_text(encoding="utf-8")), ROOT / SOURCES))
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
