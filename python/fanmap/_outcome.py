"""How the engine tells what became of a task: pairs of one of these numbers and a payload (see `convert.rs`)."""

VALUE = 0
RAISED = 1
CANCELLED = 2
TIMED_OUT = 3
LOST = 4
BROKEN = 5
