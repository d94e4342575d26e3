//! What travels between the parent and its workers, and how it is cut up.
//!
//! | module | what it is |
//! |---|---|
//! | [`frame`] | the header before every message in a ring (pure) |
//! | [`control`] | the messages on the control socket (pure but for the socket) |
//! | [`stream`] | frames in and out of a ring |

pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod stream;
