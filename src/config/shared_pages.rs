//! The choice to share pages with peers, which only `unsafe` code can make.

use crate::Pool;

/// Whether a worker shares pages with its peers, and from which pool. The default is that it does not;
/// [`ConfigBuilder::share_pages_with_peers`](crate::ConfigBuilder::share_pages_with_peers) makes the other choice.
#[derive(Clone, Debug, Default)]
pub struct SharedPages(Option<Pool>);

impl SharedPages {
    /// Of this pool.
    pub(super) fn with(pool: Pool) -> Self {
        Self(Some(pool))
    }

    /// Where what is shared comes from, if anything is.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.0.as_ref()
    }
}
