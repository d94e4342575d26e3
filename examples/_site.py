"""A small documentation site for `scrape.py`: the standard library's public modules, one page each.

`serving()` starts it as a program of its own, so that it does not compete with the scraper for the interpreter. It
listens on a loopback port that the system chooses, answers each page after a delay that depends on its name only, and
ends when its standard input does: when the `with` ends, or its parent dies.
"""

import contextlib
import html
import re
import subprocess
import sys
import sysconfig
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FASTEST, SLOWEST = 0.020, 0.080
"""The delays of a page lie between these, in seconds: a server not far away."""

IMPORT = re.compile(r"^(\s*(?:import|from) )(\w+)", re.MULTILINE)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run the site while the `with` lasts; gives the address of its front page, which links to all others."""
    command = [sys.executable, __file__]
    # Leaving Popen's own `with` closes the pipes and waits for the end.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the documentation site ended before it was ready (exit code {server.wait()})")
        yield address


def latency(path: str) -> float:
    """How long the page at `path` takes, in seconds: always the same for the same path."""
    return FASTEST + (SLOWEST - FASTEST) * (zlib.crc32(path.encode()) % 1000) / 1000


def pages() -> dict[str, bytes]:
    """Every page by its path. Made beforehand, so that answering costs a delay and nothing else."""
    sources = {path.stem: path for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py"))}
    made = {f"/{name}.html": page(name, path, sources) for name, path in sources.items()}
    listing = "".join(f'<li><a href="{name}.html">{name}</a></li>\n' for name in sources)
    made["/"] = document("The standard library", f"<ul>\n{listing}</ul>")
    return made


def page(name: str, path: Path, sources: dict[str, Path]) -> bytes:
    """The module `name` as a page: its source, where each import of a module that has a page is a link to it."""

    def link(found: re.Match[str]) -> str:
        before, module = found.groups()
        return f'{before}<a href="{module}.html">{module}</a>' if module in sources else found[0]

    source = html.escape(path.read_text(encoding="utf-8", errors="replace"), quote=False)
    return document(f"{name} - Python's standard library", f"<pre>{IMPORT.sub(link, source)}</pre>")


def document(title: str, body: str) -> bytes:
    """A whole HTML document."""
    return f"<!doctype html><title>{title}</title>\n<h1>{title}</h1>\n{body}\n".encode()


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own."""

    # Room for connections that come at once: past it a client tries again only after a second.
    request_queue_size = 256
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages()


class Handler(BaseHTTPRequestHandler):
    """Answers one request, after its page's delay."""

    server: Server

    def do_GET(self) -> None:
        time.sleep(latency(self.path))
        body = self.server.pages.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the scraper's output is the one to read."""


if __name__ == "__main__":
    # On Ctrl-C the whole group gets the signal: the scraper reports it, the site just ends.
    with contextlib.suppress(KeyboardInterrupt), Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        sys.stdin.read()
