"""Links of the pages where these are read elsewhere than in the repository: on the site, and on PyPI.

In the repository a link is relative to its page. mkdocs, which makes docs/ into a site, calls the functions whose names
begin with `on_`; `tools/wheel.py` turns the README's links.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benches/results"
RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pictures of the benchmarks are files of the site."""
    from mkdocs.structure.files import File

    for picture in (ROOT / RESULTS).glob("*.svg"):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page as the site has it."""
    return turned(markdown, f"docs/{page.file.src_uri}")


def turned(markdown: str, page: str) -> str:
    """The text of a page, with its links turned to where they lead from outside the repository."""
    return RELATIVE.sub(lambda link: turned_link(link[0], page), markdown)


def turned_link(link: str, page: str) -> str:
    """On the site: what is in docs/ as it was, the benchmarks' pictures to their copies. All else to the repository."""
    folder = posixpath.dirname(page)
    place = posixpath.normpath(posixpath.join(folder, link))
    picture = place.endswith(".svg")
    if page.startswith("docs/"):
        if place.startswith("docs/"):
            return link
        if picture and place.startswith(RESULTS):
            return posixpath.relpath(f"docs/figures/{posixpath.basename(place)}", folder)
    return f"{repository()}/{'raw' if picture else 'blob'}/main/{place}"


def repository() -> str:
    """Where the sources are, as the manifest has it."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["repository"])
