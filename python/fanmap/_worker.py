"""A worker process: it gets ready as it is told, then calls functions until it is dismissed.

This module and what it imports is all that a fresh worker loads. Bytes come from and go to the engine, which calls the
methods of `Handler`; tasks run on the process's main thread.
"""

from __future__ import annotations

# Not `signal`, which makes enumerations of all its names: a third of what a worker would import.
import _signal  # type: ignore[import-not-found]
import faulthandler
import io
import os
import pickle
import sys

from . import _codec, _inherit, _lines, _main, _native, _place, _remote
from ._late import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ._channels import Channels
    from ._native import Invitation
    from ._start import Hooks


# In characters, about.
_LONGEST_LINE = 1 << 20


def main() -> NoReturn:
    """The whole life of a worker that was started as a program."""
    _ignore_interrupts()  # before `accept`, which unblocks them
    close_inherited()
    invitation = _native.accept()
    if invitation is None:
        os._exit(0)
    _live(invitation, None)


def main_of_fork(invitation: Invitation, template: int, inherited: Hooks | None) -> NoReturn:
    """The whole life of a worker that the process `template` forked."""
    _ignore_interrupts()
    if not invitation.bind_to(template):
        os._exit(0)
    _native.empty_stdin()
    _live(invitation, inherited)


def _live(invitation: Invitation, inherited: Hooks | None) -> NoReturn:
    # A template that is a fork of the program has said so here, and its worker's own forks are none.
    _place.template = False
    os.register_at_fork(
        before=_native.before_fork, after_in_parent=_native.after_fork, after_in_child=_native.forsake_all
    )
    _place.index = invitation.index
    _tell_of_crashes()
    _write_whole_lines()
    _native.line_buffer_stdout()
    if sys.breakpointhook is sys.__breakpointhook__:
        sys.breakpointhook = _break
    code = 1
    handler = Handler(inherited, invitation.take_extra())
    os.register_at_fork(after_in_child=handler.leave_channels)
    try:
        if not _native.serve(invitation, handler):
            os._exit(1)  # nobody waits for it to end in order
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        _leave(code, handler.worker_exit)


def close_inherited() -> None:
    """In a program that was just started: close what descriptors it was handed by accident, beside the streams."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            # What this process has opened itself is not inheritable.
            if number > 2 and os.get_inheritable(number):
                os.close(number)
        except OSError:
            continue  # the one that listed the others


def _leave(code: int, worker_exit: Callable[[], object] | None) -> NoReturn:
    """End as a program does, but without the interpreter's slow and dangerous last steps."""
    try:
        if worker_exit is not None:
            try:
                worker_exit()
            except BaseException:
                import traceback

                traceback.print_exc()
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        _wind_up()
    finally:
        os._exit(code)


def _wind_up() -> None:
    """Run what is to run at exit, and see that what was written is on its way."""
    import atexit

    atexit._run_exitfuncs()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's to handle, which ends us if need be."""
    # An empty handler, not SIG_IGN, which programs that a task starts would inherit.
    _signal.signal(_signal.SIGINT, _ignore)


def _ignore(_signal: int, _frame: object) -> None:
    pass


def _tell_of_crashes() -> None:
    """Have a crash in C write the stack to standard error, unless the program has set that up in its own way."""
    if not faulthandler.is_enabled():
        faulthandler.enable(2)


def _write_whole_lines() -> None:
    """Have what is printed written line by line, each in one write: lines of workers then never mix."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # A program that forked may have put something else in their place, which is its own to write.
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if _lines.writes_to(stream, descriptor) and _lines.may_mix(descriptor):
            stream = _lines.whole(stream)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        stream.reconfigure(line_buffering=True, write_through=False)
        # How much of a line it keeps until that is ended; longer ones are written in pieces.
        stream._CHUNK_SIZE = _LONGEST_LINE


def _break(*args: Any, **named: Any) -> Any:
    from . import _debug

    return _debug.stop(sys._getframe(1), *args, **named)


class Handler:
    """What a worker does with what it is sent."""

    def __init__(self, inherited: Hooks | None, fds: list[int]) -> None:
        self._inherited = inherited
        # What to call at the end, once this worker is ready for tasks.
        self.worker_exit: Callable[[], object] | None = None
        # The first three are this worker's channels to the pool.
        self._channel_fds, self._fds = fds[:3], fds[3:]
        self._channels: Channels | None = None
        self._encoder = _codec.Encoder(to_parent=True)
        self._logged = False
        # What functions were sent as, until they are called.
        self._bodies: dict[int, tuple[bytes, list[Any]]] = {}

    def setup(self, body: bytes) -> bytes | None:
        """Get ready; what went wrong, encoded, if it cannot be."""
        try:
            told = pickle.loads(body)
            _surround(told, self._fds)
            if told["behavior"]:
                self.behave(told["behavior"], new=True)
            by_value = told["main"] == "by value"
            initializer, arguments, worker_exit = self._inherited or (None, (), None)
            if "initializer" in told:
                initializer, arguments = map(_codec.decode, told["initializer"])
            if "worker_exit" in told:
                worker_exit = _codec.decode(told["worker_exit"])
            if initializer is not None:
                self._initialize(initializer, arguments, by_value=by_value)
            self.worker_exit = worker_exit
        except BaseException as error:
            why = _remote.refusal(self._encoder.encode_exception(error), logged=self._logged)
            # Its parent will not wait for a worker that it cannot use, and what that logged must not be lost.
            try:  # noqa: SIM105 - contextlib would be one more thing that every worker imports
                _wind_up()
            except BaseException:
                pass
            return why
        return None

    def behave(self, behavior: bytes, *, new: bool = False) -> None:
        """Write and log as the caller of what is run next wants it: see `_output`."""
        if self._channels is None:
            if not behavior:
                return
            from ._channels import Channels

            self._channels = Channels(self._channel_fds)
        self._channels.behave(behavior, new=new)

    def leave_channels(self) -> None:
        """In a child that a task forked: they are its parent's. Where standard streams are piped, the child's are."""
        if self._channels is not None:
            self._channels.stop_forwarding()
        for fd in self._channel_fds:
            os.close(fd)
        self._channel_fds = []
        self._channels = None

    def _initialize(self, initializer: Callable[..., object], arguments: Any, *, by_value: bool) -> None:
        """Call the user's initializer. A failure is logged here if logging is set up here, else by the parent."""
        try:
            initializer(*arguments)
        except BaseException:
            import logging

            logger = logging.getLogger("concurrent.futures")
            # What a program sets up when it is imported is in force here unless its main module travels by value.
            if not by_value or logger.hasHandlers():
                logger.critical("Exception in initializer:", exc_info=True)
                self._logged = True
            raise

    def define(self, function: int, body: bytes, buffers: list[Any]) -> None:
        """A function; it is decoded when it is first called, so that what goes wrong is the call's error."""
        self._bodies[function] = body, buffers

    def forget(self, function: int) -> None:
        """It will not be called again."""
        self._bodies.pop(function, None)

    def function(self, function: int) -> tuple[bytes, Any, tuple[type[BaseException], ...] | None]:
        """How a function is to be called; the function; and what it is called again for, or None, if it is not.

        Asked for once; another try, if decoding it failed.
        """
        body, buffers = self._bodies[function]
        again = None
        try:
            if body[1:2] == b"r":
                decoded, again = _codec.decode(memoryview(body)[2:], buffers)
            else:
                decoded = _codec.decode(memoryview(body)[1:], buffers)
        except MemoryError:
            raise  # not what was sent is wrong
        except BaseException as error:
            raise _undecodable("the function", error) from error
        del self._bodies[function]
        return body[:1], decoded, again

    def argument(self, body: bytes, buffers: list[Any]) -> Any:
        """The argument of a task, or a list of those of a run."""
        try:
            return _codec.decode(body, buffers)
        except MemoryError:
            raise
        except BaseException as error:
            raise _undecodable("the task's argument", error) from error

    def result(self, value: Any, buffers: list[pickle.PickleBuffer] | None) -> bytes:
        """A task's value, encoded."""
        return self._encoder.encode(value, "the result", buffers)

    def raised(self, error: BaseException) -> bytes:
        """What a task raised, encoded."""
        return self._encoder.encode_exception(error)

    def tidy(self) -> None:
        """Free what nothing but itself refers to: this worker has more memory than it may keep."""
        import gc

        gc.collect()


def _undecodable(what: str, error: BaseException) -> _remote.Undecodable:
    return _remote.Undecodable(f"{what} could not be unpickled in the worker: {type(error).__name__}: {error}")


def _surround(told: dict[str, Any], fds: list[int]) -> None:
    """Take over the parent's surroundings."""
    _place.depth = told["depth"]
    if told["cwd"] is not None:
        try:  # noqa: SIM105 - as above
            os.chdir(told["cwd"])
        except OSError:
            pass  # removed since, and of no use to the parent either
    if os.environ != told["environ"]:
        os.environ.clear()
        os.environ.update(told["environ"])
    _place.limited, _place.cores = told["limited"], told["cores"]
    if told["main"] == "inherited" and "OPENBLAS_NUM_THREADS" in told["limited"]:
        # What the fork brought along reads no variable again.
        from . import _budget

        _budget.limit_loaded(told["cores"])
    sys.path[:] = told["path"]
    sys.argv[:] = told["argv"]
    _filter_warnings(told["filters"])
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Forked workers would all draw the same numbers. Python's own `random` sees to itself.
        numpy_random.seed()
    if told["multiprocessing"] is not None:
        _inherit.tell(told["multiprocessing"], fds)
    if told["main"] == "by value":
        _main.install(told["package"])
    elif told["main"] == "imported":
        import multiprocessing.spawn

        # While it is set, a pool of processes that the program makes outside its guard is refused, by the same words as
        # in a process that multiprocessing started.
        current = multiprocessing.process.current_process()
        current._inheriting = True  # type: ignore[attr-defined]
        try:
            multiprocessing.spawn.prepare(told["preparation"])
        finally:
            del current._inheriting  # type: ignore[attr-defined]


def _filter_warnings(travelled: list[tuple[str, bytes]]) -> None:
    """Have the parent's filters. Those for the warnings of a module that is not imported wait until it is."""
    import warnings

    late: dict[str, list[bytes]] = {}
    filters = []
    for module, pickled in travelled:
        if module in sys.modules:
            filters += _loaded([pickled])
        else:
            # The package as a whole, which sets filters of its own while it is imported.
            package = module.partition(".")[0]
            late.setdefault(module if package in sys.modules else package, []).append(pickled)
    if filters != list(warnings.filters):
        _set_filters(filters)
    for module, waiting in late.items():
        when_imported(module, _adder(waiting))


def _adder(pickled: list[bytes]) -> Callable[[object], None]:
    def add(_: object) -> None:
        import warnings

        _set_filters(_loaded(pickled) + list(warnings.filters))

    return add


def _loaded(pickled: list[bytes]) -> list[Any]:
    loaded = []
    for one in pickled:
        try:
            loaded.append(pickle.loads(one))
        except Exception:
            continue  # of a category that only exists in the parent
    return loaded


def _set_filters(filters: list[Any]) -> None:
    import warnings

    warnings.resetwarnings()  # also tells the compiled side that what it remembers is old
    warnings.filters.extend(filters)  # type: ignore[attr-defined]
