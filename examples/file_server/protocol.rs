//! What client and server say to each other: calls on one channel. The bytes of files do not go through them.

use serde::{Deserialize, Serialize};
use zcmi::{Config, RemoteBuffer};

/// The channel of the calls.
pub(crate) const CHANNEL: u32 = 1;
/// Changes with the messages.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the longest chunk.
pub(crate) const LONGEST_CHUNK: u64 = 4 << 20;
/// Chunks of a client that may be in memory at once.
pub(crate) const MOST_CHUNKS: usize = 32;
/// Names in one answer to `List`.
pub(crate) const PAGE: usize = 200;

/// The code of an error: the file is not the one that was opened any more.
pub(crate) const CHANGED: u32 = 1;
/// The code of an error: there is no such file, or it may not be sent.
pub(crate) const REFUSED: u32 = 2;
/// The code of an error: the client asks for what no client asks for.
pub(crate) const NONSENSE: u32 = 3;

/// What a client asks for. Paths are relative to the server's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Whether this is the right server.
    Hello { program: String, version: u32 },
    /// The names in a folder, from the one after `after` on.
    List { path: String, after: Option<String> },
    /// What file there is.
    Open { path: String },
    /// Bytes of a file, to be read. `done` are chunks that have been.
    Chunk { path: String, identity: Identity, offset: u64, length: u64, done: Vec<u64> },
    /// The SHA-256 of a whole file.
    Digest { path: String, identity: Identity },
}

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To `Hello`.
    Hello,
    /// To `List`: sorted by name; the last page is shorter than `PAGE`.
    Names(Vec<Name>),
    /// To `Open`.
    File(Identity),
    /// To `Chunk`.
    Chunk(Chunk),
    /// To `Digest`.
    Digest([u8; 32]),
}

/// Which file it is, as far as the file system tells: if any of this is another, the file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Bytes.
    pub(crate) length: u64,
    /// The device and the number of the inode.
    pub(crate) inode: (u64, u64),
    /// When it was written last, in nanoseconds since 1970.
    pub(crate) modified: i128,
}

/// Bytes of a file in the server's memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// To be named in `done`.
    pub(crate) id: u64,
    /// Where it is, for as long as the lease lasts.
    pub(crate) memory: RemoteBuffer,
    /// The CRC-32C of the bytes.
    pub(crate) checksum: u32,
}

/// A name in a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Name {
    /// The name.
    pub(crate) name: String,
    /// Bytes, if it is a file; folders have none.
    pub(crate) length: Option<u64>,
}

/// The settings of both ends: messages are short, files do not travel in them.
pub(crate) fn config() -> zcmi::Result<Config> {
    Config::builder().max_message_size(1 << 20).environment()?.build()
}
