"""What this process is in a process pool, if anything. Set by the loops of workers and templates."""

# A worker: maps run in place here.
worker = False
# A template: its forks are workers, and not the user's.
template = False
