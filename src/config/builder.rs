//! A configuration, setting by setting.

use super::{Config, SharedPages};
use crate::{Error, ErrorKind, Pool, Result};

/// Made by [`Config::builder`]; a method for each setting.
///
/// ```
/// use std::time::Duration;
/// use zcmi::{Config, Polling};
///
/// let config = Config::builder().polling(Polling::Event).connect_timeout(Duration::from_secs(1)).build()?;
/// assert_eq!(config.receive_depth, 64);
/// let error = Config::builder().receive_depth(0).build().expect_err("no room for messages");
/// assert!(error.to_string().contains("receive_depth is 0, must be 1 to 8192"));
/// # Ok::<(), zcmi::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    pub(super) config: Config,
}

impl ConfigBuilder {
    /// Replaces what the environment has variables for; see [`Config::from_env`].
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), with the variable, its value and what is allowed.
    pub fn environment(mut self) -> Result<Self> {
        super::environment::apply(&mut self.config, std::env::vars_os())?;
        Ok(self)
    }

    /// Shares pages with peers of `shm://` that have chosen so too, the mode `shared` of that transport: a [`Buffer`](crate::Buffer) of `pool`
    /// is handed over as the pages that it lies in ([`Channel::hand_over`](crate::Channel::hand_over)), and the memory that is granted in it is accessed by the
    /// peers' own processors. With all other peers, and over all other transports, everything is as it is without.
    ///
    /// `pool` is one that is [`shareable`](crate::PoolOptions::shareable). A connection [says](crate::Connection::shares_pages) whether both ends share, and
    /// gives the [pool](crate::Connection::pool) whose buffers can be handed over there.
    ///
    /// # Safety
    /// Pages that a peer maps are protected by nothing but the peer: a [`Buffer`](crate::Buffer) is memory that nobody else writes only because it keeps to that.
    /// For as long as any connection of a worker with these settings, any buffer of `pool`, or any buffer that was received on such a connection exists, the
    /// caller promises of each process that connects to such a worker, or listens where one connects, and that has chosen to share pages too:
    ///
    /// - it accesses the pages that it is given through this library alone, of a version that speaks the same protocol, which keeps within the buffers that were handed
    ///   over to it and not given back, and within the grants that it holds and was not asked to give up;
    /// - it does not write into memory at random, by a fault in `unsafe` code for example, and runs no code of those who would;
    /// - it does not give the descriptors to others, change the files' pages, or let go early of the pipe by which we learn that it has unmapped them.
    ///
    /// The promise is about the worker of every [`Config`] that the choice is copied to, which safe code can do: its field `shared_pages` is public.
    ///
    /// The kernel only lets processes of the same user connect, which is not enough: those may be anybody's code.
    #[must_use]
    #[allow(unsafe_code, reason = "only the caller can know whom it trusts")]
    pub unsafe fn share_pages_with_peers(mut self, pool: &Pool) -> Self {
        self.config.shared_pages = SharedPages::with(pool.clone());
        self
    }

    /// The configuration, checked.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a setting is out of bounds; the error names it.
    pub fn build(self) -> Result<Config> {
        self.config.validate()?;
        if self.config.shared_pages.pool().is_some_and(|pool| !pool.is_shareable()) {
            let detail = "the pool that is to be shared with peers is not one that is built with `shareable(true)`";
            return Err(Error::new(ErrorKind::Unsupported, "configure").with_detail(detail));
        }
        Ok(self.config)
    }
}
