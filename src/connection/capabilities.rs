//! What transports differ in, as far as a program can tell.

use super::Connection;
use crate::Isolation;

/// What a connection can do that not every transport can, and the other way round. All else is the same on each.
///
/// ```no_run
/// # fn example(connection: &zcmi::Connection) {
/// if connection.capabilities().one_sided_needs_progress {
///     eprintln!("{}: a peer that is stopped holds reads and writes up", connection.transport());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whose requests the key of a grant serves that is made on this connection, of memory that is not paged on demand and
    /// may be written; see [`Grant::isolation`](crate::Grant::isolation).
    pub isolation: Isolation,
    /// Whether memory can be used that is not pinned ([`Registered::on_demand`](crate::Registered::on_demand)). Where it cannot, its
    /// first use fails with [`Unsupported`](crate::ErrorKind::Unsupported).
    pub on_demand: bool,
    /// Whether reads, writes and atomic operations are carried out by the peer's process, in the background whatever its program
    /// does: they wait while that process is stopped. Elsewhere a device does it by itself. Of memory in
    /// [shared pages](Connection::shares_pages) the holder's own processor does it, whatever this says, up to 4 MiB at once.
    pub one_sided_needs_progress: bool,
}

impl Connection {
    /// What it can do that not every transport can.
    pub fn capabilities(&self) -> Capabilities {
        let engine = &self.0.engine;
        Capabilities {
            isolation: if engine.domain.has_windows() { Isolation::Connection } else { Isolation::Domain },
            on_demand: engine.domain.pages_on_demand(),
            one_sided_needs_progress: engine.transport.needs_progress(),
        }
    }
}
