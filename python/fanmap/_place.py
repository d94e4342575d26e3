"""Whether this process is a worker of a process pool. Set by the worker's loop; maps run in place there."""

worker = False
