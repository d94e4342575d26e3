"""Work that waits: fetch and parse the pages of a documentation site over real HTTP.

No executor is named, and many threads do it: the first pages are fetched here and measured, and they wait. The server
takes 20 to 80 ms for a page: the table shows how little processor time there is in all those seconds. So workers are
not for the cores but for the waiting, and there may be many more of them. Processes could wait as well as threads do,
but each is a whole interpreter, where a thread is nearly nothing.

The site is a program of its own, `_site.py`, and serves the sources of this Python's standard library as pages.
"""

import contextlib
from html.parser import HTMLParser
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import _site
import fanmap
from _table import SMALL, Race


class Page(NamedTuple):
    """What is kept of a page."""

    url: str
    title: str
    links: tuple[str, ...]
    words: int


class PageParser(HTMLParser):
    """Collects title, links and number of words while it is fed."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._in_title = False
        self.title = ""
        self.links: list[str] = []
        self.words = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            self.links.append(urljoin(self._url, target))

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        else:
            self.words += len(data.split())


def fetch(url: str) -> Page:
    """Get the page at `url` and parse it."""
    where = urlsplit(url)
    with contextlib.closing(HTTPConnection(where.netloc, timeout=60)) as connection:
        connection.request("GET", where.path)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{url}: {response.status} {response.reason}")
        text = response.read().decode()
    parser = PageParser(url)
    parser.feed(text)
    parser.close()
    return Page(url, parser.title, tuple(parser.links), parser.words)


race = Race()
with _site.serving() as front_page:
    urls = sorted(set(fetch(front_page).links))
    if SMALL:
        urls = urls[:12]

    serial = race.run("serial", map, fetch, urls)
    chosen = race.run("fanmap.map", fanmap.map, fetch, urls)

assert chosen == serial
longest = max(serial, key=lambda page: page.words)
words, links = sum(page.words for page in serial), sum(len(page.links) for page in serial)
print(f"\n{len(serial)} pages with {words:,} words and {links:,} links; the longest is {longest.title!r}")
print(race)
fanmap.shutdown()
