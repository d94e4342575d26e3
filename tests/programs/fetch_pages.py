"""Fetch pages from a web server: a dictionary from futures to addresses, as they complete, one of them missing."""

import concurrent.futures as futures
import http.server
import threading
import urllib.error
import urllib.request

PAGES = {"/": 14, "/about": 205, "/news": 1024, "/large": 100_000}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        size = PAGES.get(self.path)
        if size is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, *args):
        pass


def load(url, timeout):
    with urllib.request.urlopen(url, timeout=timeout) as page:
        return page.read()


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever).start()
    base = f"http://127.0.0.1:{server.server_port}"
    lines = []
    with futures.ThreadPoolExecutor(max_workers=5) as executor:
        paths = [*PAGES, "/missing"]
        future_to_path = {executor.submit(load, base + path, 60): path for path in paths}
        for future in futures.as_completed(future_to_path):
            path = future_to_path[future]
            try:
                data = future.result()
            except urllib.error.HTTPError as error:
                lines.append(f"{path} failed: {error}")
            else:
                lines.append(f"{path} is {len(data)} bytes")
    server.shutdown()
print("\n".join(sorted(lines)))
