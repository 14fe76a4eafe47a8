//! The terminating node's work: what it does for the owner of a path that ends there, and for exit nodes that come to it
//! (docs/protocol.md, section 5.2).
//!
//! ```text
//!   its first cell ──▶ Uses ─┬─ OPEN, LOOKUP ──▶ Exit ──▶ a link to an entry node, then the data plane; or an answer
//!   of one path              ╰─ SERVE ──▶ a record to publish, now or at a moment of the next step
//!   JOIN of an exit node ──▶ Entry ──▶ a ready tunnel of the path, INCOMING, then the data plane
//! ```
//!
//! What passes on a path's control tunnel, at either end, is [`Control`]'s to say; [`Joins`] counts exit nodes.
//!
//! [`Uses`] is a part of what the node knows of a path. Each use of a tunnel is a value of its own, which says what is to be done next and
//! by when; who steps it does that, and says how it went. When all has been said that decides, its last output hands tunnel and link to
//! the data plane: no byte passes here from then on. Times are milliseconds: of [`Uses`] since 1970, of all others of a clock that
//! does not leap.

mod control;
mod entry;
mod exit;
mod joins;
mod uses;

pub use control::{Control, Input as ControlInput, Output as ControlOutput, Whose};
pub use entry::{Entry, Input as EntryInput, Output as EntryOutput};
pub use exit::{Exit, Input as ExitInput, Output as ExitOutput};
pub use joins::Joins;
pub use uses::{First, Publication, RecordRefused, Uses};
