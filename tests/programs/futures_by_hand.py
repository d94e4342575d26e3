"""A future used as a promise between threads, and what its states refuse; an executor of one's own."""

import threading
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError, as_completed


class InlineExecutor(Executor):
    """Calls at once, in the caller's thread."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


promise = Future()
thread = threading.Thread(target=lambda: promise.set_result("kept"))
print(promise.done(), promise.set_running_or_notify_cancel(), promise.running())
thread.start()
print(promise.result(timeout=60), promise.exception())
thread.join()
for act in (lambda: promise.set_result(2), lambda: promise.set_exception(ValueError())):
    try:
        act()
    except InvalidStateError as error:
        print(type(error).__name__, str(error).split(":")[0])

broken = Future()
broken.set_exception(LookupError("gone"))
try:
    broken.result()
except LookupError as error:
    print("raised", error, error is broken.exception())

cancelled = Future()
print(cancelled.cancel(), cancelled.set_running_or_notify_cancel(), cancelled.cancelled())
try:
    cancelled.result(0)
except CancelledError:
    print("cancelled")

with InlineExecutor() as executor:
    print(list(executor.map(divmod, [17, 9], [5, 2])))
    futures = [executor.submit(int, text) for text in ("7", "seven")]
    print(sorted(type(future.exception()).__name__ for future in as_completed(futures)))
print(issubclass(CancelledError, Exception), issubclass(InvalidStateError, Exception))
