//! A pool of supervised worker processes, in bytes: it knows nothing of what functions and arguments mean.
//!
//! # Who does what
//! * **Any thread** may submit and cancel. Under the pool's lock it queues the task and, where a worker has room, writes it
//!   straight into that worker's ring: no other thread has to wake up for a task to start.
//! * **The supervisor** is one thread with all signals blocked. It starts workers (they die with the thread that started
//!   them), reads what they say, settles what becomes of tasks when one ends, and sleeps in `poll` otherwise: on the pool's
//!   bell, the workers' pidfds and the template's socket. It never needs anything of the program's but the lock.
//!   It is started by the first submit, and ends with the last worker once the pool is closed, or was idle for as long as
//!   it may be.
//! * **Sinks** get the ends. They are called after the lock is released, by whoever found the end.
//! * **A thread that is about to wait** for an end may look first what the workers have said ([`Pool::look`]), under the lock and
//!   as the supervisor would. So what is there needs no other thread to wake up, and what came is decoded where it is wanted.
//!   See *Who hears the workers*.
//!
//! # Why it cannot hang
//! The lock is never held while waiting: writing into a ring takes what fits and leaves the rest to the next turn. The
//! supervisor's wake-ups are: a worker's ring (it armed every flag and looked once more before it slept), a worker's end
//! (the kernel makes the pidfd readable, whatever the worker was doing), the template's end, and the bell that other
//! threads ring after a change that needs it. A worker that ends has its last words read first; then each of its tasks is
//! settled by its state word: started ones are lost, others go back to the head of the queue.
//!
//! # Tasks whose time is limited
//! The limit is the sink's to say ([`job::Sink::time_limit`]). A worker notes in the link when it starts such a task, before
//! the step of the state word, so the parent, which looks at the word first, never takes an earlier task's start for this
//! one's. The supervisor's sleep ends when the running task's time is up, or, while it has not started, after as long as
//! that: then it looks again. Whoever sends such a task wakes a supervisor that would oversleep. A task whose time is up is
//! condemned; if that fails it has just ended. Its worker is killed, and when its end shows that task is the one that timed
//! out; the others of its chunk that have not started go to others.
//!
//! # Tasks that are tried again
//! Whether one is that failed, how often and after which rest, is the sink's to say too ([`job::Sink::retries`]); whether what
//! its function raised counts, the worker's handler. Its job keeps the encoded argument, and what the attempts came to, until
//! its outcome is final; the sink hears of that alone. All is decided under the lock, by who hears the
//! failure or settles a death:
//!
//! ```text
//! Sent     -> Queued      it failed and is tried again at once: at the head of the queue
//! Sent     -> Resting     it failed and is tried again later: with no worker, in a list by time
//! Resting  -> Queued      the supervisor, whose sleep ends when the first of them has rested
//! Resting  -> Cancelled   any thread, as from Queued: it never runs again
//! Sent     -> Ended       it returned, or failed for the last time
//! ```
//! Of a run of tasks the one that failed goes on as a job of its own, and the others as before. A pool that closes waits for
//! those that rest, as for those that are queued; one that breaks fails them. What ran when its sink, or all that waited, was
//! cancelled is not tried again ([`job::Job::forgo`]), or its next try would escape the cancel. Workers map the blobs of such
//! tasks copy on write, so that each attempt finds them as they were sent. Who adds to it has
//! heard a worker, after which the supervisor has a turn, and looks at the list before it sleeps: none is overslept.
//!
//! # Tasks that are held back
//! A sink may have its tasks stay in the queue ([`job::Sink::holds`]), so that results do not pile up before a consumer that
//! is slow to take them: others pass them, and no worker is started for them. A sink that ends this says so
//! ([`Pool::resume`]). What holds, and why that cannot hang, is the map's (`brake`). A pool that closes holds nothing.
//!
//! # Who hears the workers
//! Who looks leaves the workers' flags as they are as long as it finds something: it will look again before it sleeps. The
//! supervisor, when it comes to sleep after such a look, does not arm them either, and so is not rung for what the other one
//! hears; but it sleeps for a moment only (`policy::LEFT_ALONE`), and arms them after that unless somebody has looked again.
//! Before it sleeps itself, who looks arms every flag and looks once more, as the supervisor does: what comes then rings for
//! the supervisor, which wakes it. All of this is under the lock, and a flag that is armed once too often costs a wake-up and
//! nothing else. So whatever a worker says, and whoever hears it, the supervisor has a turn soon after: it was rung, or its sleep
//! has an end. What only it does (ends, deadlines, tasks that rest) waits no longer than that.
//!
//! # Tiny tasks of a map
//! Those whose arguments can be told apart one behind the other ([`Pool::submit_next`]) are put together to runs while they are
//! queued ([`job::Job::join`]), and sent once a worker runs low or the run is long enough. A run in the queue is a job like any
//! other, so nothing in it waits for an item that has not been read: whoever hears that a worker is through with what it had
//! sends it what there is.
//!
//! # Results that gather
//! A wake-up takes a core from a worker. So the supervisor may doze: it lets ends gather for a moment (`policy`). It does where
//! results of a map come thick and fast and every busy worker has more to do; where tasks are tiny and end one by one; and where
//! nobody waits for the ends of tiny tasks ([`job::Wanted`]). It is rung before that only by other threads, among them any that
//! comes to wait for ends that are wanted later ([`shared`]), or by a worker that has run out. Each doze follows results that
//! came, so a pool that has nothing to do sleeps.
//!
//! | module | what it is |
//! |---|---|
//! | [`policy`] | the decisions (pure) |
//! | [`job`] | tasks, functions, sinks |
//! | [`launcher`] | how workers come to be |
//! | [`seat`] | the parent's record of one worker |
//! | [`state`] | what the lock protects |
//! | [`shared`] | what the pool's threads share |
//! | [`watch`] | the supervisor's thread |
//! | [`pool`] | what callers hold: the pool and its tickets |
//! | `hostile` | workers that write whatever they like, for tests |

#[cfg(test)]
mod hostile;
pub(crate) mod job;
pub(crate) mod launcher;
mod policy;
mod pool;
mod seat;
mod shared;
mod state;
mod watch;

pub use self::pool::{Attention, Pool, Ticket};
