"""Nested submits: tasks submit tasks to their own pool, and nobody waits inside the pool."""

import threading
from concurrent.futures import ThreadPoolExecutor

TREE = {
    "/": ["bin", "etc", "home"],
    "/bin": ["sh", "ls"],
    "/etc": ["hosts", "ssh"],
    "/etc/ssh": ["config"],
    "/home": ["ada", "emmy"],
    "/home/ada": ["notes", "engine"],
    "/home/ada/engine": ["cards", "mill", "store"],
    "/home/emmy": [],
}

lock = threading.Lock()
files, pending, finished = [], 1, threading.Event()


def visit(executor, path):
    global pending
    for name in TREE[path]:
        child = path.rstrip("/") + "/" + name
        with lock:
            if child not in TREE:
                files.append(child)
                continue
            pending += 1
        executor.submit(visit, executor, child)
    with lock:
        pending -= 1
        if pending == 0:
            finished.set()


with ThreadPoolExecutor(max_workers=2) as executor:
    executor.submit(visit, executor, "/")
    assert finished.wait(60)
print("\n".join(sorted(files)))
