"""Puts fanmap's backends in the place of joblib's own, in every process that joblib's tests start.

`run_joblib.py` has each interpreter call `install`. It does nothing until `joblib.parallel` is imported; then, before
anybody sees that module, `"loky"` is fanmap's backend of processes and `"threading"` the one of threads, and so are the
classes that the tests take from `joblib._parallel_backends`.
"""

import sys
from types import SimpleNamespace

from substitute import Substitute


def substitute(parallel):
    """Put fanmap's backends where joblib's are."""
    import fanmap
    import fanmap.joblib
    from fanmap import _default
    from joblib import _parallel_backends
    from joblib.externals import loky

    processes, threads = fanmap.joblib.FanmapBackend, fanmap.joblib.FanmapThreadsBackend
    parallel.BACKENDS["loky"] = _parallel_backends.LokyBackend = processes
    parallel.BACKENDS["threading"] = _parallel_backends.ThreadingBackend = threads
    # The tests compare names, too.
    processes.__name__, threads.__name__ = "LokyBackend", "ThreadingBackend"
    # They shut down the pool that loky keeps, and look whether it is the same again.
    loky.get_reusable_executor = lambda reuse=True: SimpleNamespace(
        kept=_default._warm.get("joblib"), shutdown=fanmap.shutdown
    )
    # In workers no further name is to appear, which the tests do not know.
    fanmap.joblib.register = lambda: None


def install():
    """Called once in each process, by its `sitecustomize`."""
    sys.meta_path.insert(0, Substitute("joblib.parallel", substitute))
