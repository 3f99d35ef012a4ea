//! What differs between the examples.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zcmi::{Config, Connection, Polling};

use super::{Progress, Result};

/// An example: what each end does, once connected, for one row of the result.
pub(crate) trait Program {
    /// Its name; the other end must have the same.
    const NAME: &'static str;
    /// One row: what to do, how often, how long.
    type Case: Serialize + DeserializeOwned;
    /// What the client finds out.
    type Outcome;

    /// The connection that the case needs. An error if the case makes no sense: a server hears it from anybody.
    fn channel(case: &Self::Case) -> std::result::Result<Channel, String>;
    /// Whether the server has nothing to do meanwhile; then it sleeps instead of polling.
    fn is_one_sided(case: &Self::Case) -> bool;
    /// The client's part.
    async fn measure(case: &Self::Case, connection: &Connection, progress: &Progress) -> Result<Self::Outcome>;
    /// The server's part.
    async fn serve(case: &Self::Case, connection: &Connection, progress: &Progress) -> Result<()>;
}

/// The sizes of a connection, the same at both ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// Longest message.
    pub(crate) max_message_size: u32,
    /// Messages that can wait at each end.
    pub(crate) receive_depth: u32,
    /// Operations outstanding.
    pub(crate) send_depth: u32,
}

impl Channel {
    /// Small, for the messages of the example itself.
    pub(crate) const CONTROL: Self = Self { max_message_size: 2048, receive_depth: 4, send_depth: 16 };
    /// Memory that a server gives to one connection.
    const MOST_MEMORY: u64 = 1 << 30;

    /// The worker's settings for it.
    pub(crate) fn config(self, polling: Polling, connect_timeout: Duration) -> Config {
        let Self { max_message_size, receive_depth, send_depth } = self;
        Config { max_message_size, receive_depth, send_depth, polling, connect_timeout, ..Config::default() }
    }

    /// The settings of the workers over whose connections clients ask.
    pub(crate) fn control_config() -> Config {
        let standard = Config::default();
        Self::CONTROL.config(standard.polling, standard.connect_timeout)
    }

    /// An error if it takes more memory than a server gives.
    pub(crate) fn affordable(self) -> std::result::Result<(), String> {
        let memory = u64::from(Config::default().frame_size) * u64::from(self.receive_depth);
        if memory <= Self::MOST_MEMORY {
            return Ok(());
        }
        Err(format!("{memory} bytes of receive memory; the server gives at most {} per connection", Self::MOST_MEMORY))
    }
}
