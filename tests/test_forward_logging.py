"""Log records of workers, handled by the program's own loggers."""

from __future__ import annotations

from pathlib import Path

import pytest
from _scripts import good

# A handler that keeps what comes.
KEEPS = """
import fanmap, logging, os, sys
class Keep(logging.Handler):
    def emit(self, record):
        kept.append(record)
kept = []
"""


def test_records_that_the_programs_levels_pass_are_handled_here_before_the_result() -> None:
    good(f"""{KEEPS}
logging.getLogger().addHandler(Keep())
logging.getLogger("app").setLevel(logging.DEBUG)
logging.getLogger("app.noisy").setLevel(logging.ERROR)
def work(x):
    logging.getLogger("app.part").debug("item %d of %s", x, "all")
    logging.getLogger("app.noisy").warning("unheard")
    logging.getLogger("other").info("unheard, too")
    return os.getpid(), logging.getLogger("app.noisy").isEnabledFor(logging.WARNING)
for index, (pid, enabled) in enumerate(fanmap.map(work, range(5), forward_logging=True)):
    record = next(record for record in kept if record.args == (index, "all"))
    assert record.getMessage() == f"item {{index}} of all" and record.name == "app.part"
    assert (record.process, record.processName) == (pid, f"fanmap-worker-{{pid}}")
    assert not enabled, "the record was made for nothing"
assert len(kept) == 5, kept
# The levels are those of the time of the call, also for workers that live.
logging.getLogger("app.noisy").setLevel(logging.NOTSET)
logging.getLogger("app").setLevel(logging.WARNING)
kept.clear()
assert len(list(fanmap.map(work, range(5), forward_logging=True))) == 5
assert [record.name for record in kept] == ["app.noisy"] * 5, kept
""")


def test_a_record_keeps_what_can_travel_and_says_the_rest() -> None:
    good(f"""{KEEPS}
import threading
log = logging.getLogger("app")
log.addHandler(Keep())
class Point:
    def __init__(self, x):
        self.x = x
    def __repr__(self):
        return f"Point({{self.x}})"
def work(x):
    log.warning("a point: %s", Point(x))
    log.warning("a lock: %s", lock := threading.Lock(), extra={{"mine": Point(7), "lock": lock, "text": "t"}})
    try:
        1 / x
    except ZeroDivisionError:
        log.exception("failed")
    log.error("long: %s", "x" * 1_000_000)
    log.error("%d", "does not fit")
logging.raiseExceptions = False
with fanmap.ProcessPoolExecutor(1, forward_logging=True) as pool:
    pool.submit(work, 0).result()
point, lock, failed, long, wrong = kept
assert type(point.args[0]) is Point and point.getMessage() == "a point: Point(0)"
assert lock.getMessage().startswith("a lock: <unlocked _thread.lock") and not lock.args
assert type(lock.mine) is Point and lock.lock.startswith("<unlocked") and lock.text == "t"
assert failed.exc_info is None and failed.exc_text.endswith("ZeroDivisionError: division by zero")
assert "Traceback" in logging.Formatter().format(failed)
assert long.getMessage().startswith("long: xxx") and long.getMessage().endswith("...") and len(long.getMessage()) < 5000
assert wrong.msg == "%d" and wrong.args == ("does not fit",)
""")


def test_records_of_a_worker_come_in_order_and_the_last_ones_of_a_dying_worker_too() -> None:
    good(f"""{KEEPS}
logging.getLogger().addHandler(Keep())
def work(x):
    for part in range(500):
        logging.warning("%d %d", x, part)
    if x == 3:
        os._exit(1)
results = list(fanmap.map(work, range(8), workers=2, on_error="return", forward_logging=True))
assert [isinstance(result, fanmap.Failure) for result in results] == [x == 3 for x in range(8)]
parts = {{}}
for record in kept:
    x, part = record.args
    parts.setdefault(x, []).append(part)
assert parts == {{x: list(range(500)) for x in range(8)}}
""")


@pytest.mark.parametrize("way", ["template", "fork", "forkserver", "spawn"])
def test_a_record_is_handled_once_with_every_start_method(way: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("""
import fanmap, logging, multiprocessing, sys
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
def init():
    logging.getLogger("init").warning("ready")
def work(x):
    logging.getLogger("work").warning("%d", x)
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    with fanmap.ProcessPoolExecutor(1, context, initializer=init, forward_logging=True) as pool:
        pool.submit(work, 1).result()
""")
    assert good("", way, command=(str(script),)) == "init ready\nwork 1\n"


def test_without_it_a_warm_pools_workers_log_as_they_did() -> None:
    good(f"""{KEEPS}
logging.getLogger().addHandler(Keep())
def work(x):
    logging.getLogger("app").warning("heard")
    return len(logging.getLogger().handlers), logging.lastResort is not None
import contextlib, io
err = io.StringIO()
with contextlib.redirect_stderr(err):
    list(fanmap.map(work, [1], forward_logging=True))
    assert (len(kept), err.getvalue()) == (1, "")
    list(fanmap.map(work, [1], executor="processes"))
    assert (len(kept), err.getvalue()) == (1, "heard\\n")
""")
