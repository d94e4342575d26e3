"""What mkdocs asks while it makes the pages of docs/ into a site: links that lead out of docs/, and pictures.

A page is read in the repository, too, so its links are relative to its file. On the site a link to a picture of
benches/results leads to a copy, and any other link out of docs/ to the repository.
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
LINK = re.compile(r"(\]\()(\.\./[^)#\s]*)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pictures of the benchmarks are files of the site."""
    from mkdocs.structure.files import File

    for picture in (ROOT / RESULTS).glob("*.svg"):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links out of docs/ turned to where the site has what they name."""
    return LINK.sub(lambda link: link[1] + turned(link[2], page.file.src_uri), markdown)


def turned(link: str, page: str) -> str:
    """A relative link of a page, both as in the repository; one that stays within docs/ is as it was."""
    place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    if place.startswith("docs/"):
        return link
    if place.startswith(RESULTS) and place.endswith(".svg"):
        return posixpath.relpath(f"figures/{posixpath.basename(place)}", posixpath.dirname(page) or ".")
    return f"{repository()}/blob/main/{place}"


def repository() -> str:
    """Where the sources are, as the manifest has it."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["repository"])
