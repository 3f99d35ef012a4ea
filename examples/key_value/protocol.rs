//! What client and server say to each other: calls on one channel.

use serde::{Deserialize, Serialize};
use zcmi::{Config, RemoteBuffer};

/// The channel of the calls.
pub(crate) const CHANNEL: u32 = 1;
/// Changes with the messages and with the layout of the slots.
pub(crate) const VERSION: u32 = 1;

/// The code of an error: key or value are too long.
pub(crate) const TOO_LONG: u32 = 1;
/// The code of an error: there is no room near the key's home.
pub(crate) const FULL: u32 = 2;
/// The code of an error: the client speaks another version.
pub(crate) const OTHER_VERSION: u32 = 3;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The table, for reading. The client's version.
    Table { program: String, version: u32 },
    /// The value of a key, if reading does not tell.
    Get { key: Vec<u8> },
    /// A new value for a key.
    Put { key: Vec<u8>, value: Vec<u8> },
    /// No such key any more.
    Delete { key: Vec<u8> },
}

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To `Table`.
    Table(Welcome),
    /// To `Get`.
    Value(Option<Vec<u8>>),
    /// To `Put`.
    Put,
    /// To `Delete`: whether it was there.
    Deleted(bool),
}

/// What a client must know to read the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// Another after each start of the server, which begins with an empty table.
    pub(crate) incarnation: u64,
    /// What the hash begins with.
    pub(crate) seed: u64,
    /// Homes of the table.
    pub(crate) homes: u64,
    /// The slots.
    pub(crate) slots: RemoteBuffer,
}

/// The settings of both ends: no message is longer than a few slots.
pub(crate) fn config() -> zcmi::Result<Config> {
    Config::builder().max_message_size(16 << 10).environment()?.build()
}
