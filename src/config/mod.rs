//! Settings of a worker: the one table of all of them.

mod builder;
mod environment;
mod kind;
mod shared_pages;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::kind::{cache_limits, number, polling, size, switch, time, transport};
use self::table::settings;
use crate::protocol::LEAST_FRAME;
use crate::{CacheLimits, Error, ErrorKind, Result};

pub use builder::ConfigBuilder;
pub use shared_pages::SharedPages;

const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

// A line for each: field: type = default, what is allowed; the variable is ZCMI_ and the field's name, unless another
// one follows. The first sentence of the documentation is what `docs/configuration.md` says; a test tells how to bring
// that page up to date, and wants default and bounds in the documentation.
settings! {
    /// Longest message that is accepted, in bytes: 1 B to 2 GiB. Default 1 GiB. It takes memory only when it is received.
    max_message_size: u32 = 1 << 30, size(1, 1 << 31);
    /// Bytes of a frame, which carries many small messages or one that is not long: 512 to 65535. Default 4096. What does not
    /// fit one is fetched by its receiver. The smaller value of both sides counts.
    frame_size: u16 = 4096, number(LEAST_FRAME as u64, u16::MAX as u64);
    /// Frames that a peer can send before it hears from here: 1 to 8192. Default 64. Each takes `frame_size` bytes of
    /// registered memory. A connection begins with one, and its peer gets more as it makes use of them.
    receive_depth: u32 = 64, number(1, 8192);
    /// Bytes that can wait on each channel until they are received: 1 B to 1 GiB. Default 256 KiB.
    channel_window: u32 = 256 << 10, size(1, 1 << 30);
    /// Channels of one connection: 1 to 65536. Default 1024.
    max_channels: u32 = 1024, number(1, 65_536);
    /// Bytes of long messages that are fetched ahead on each channel, while messages before them are: 0 B to 1 GiB.
    /// Default 4 MiB.
    fetch_ahead: u32 = 4 << 20, size(0, 1 << 30);
    /// Whether small messages wait for the frames before them, and share one: on or off. Default on. They wait until a
    /// frame has ended, somebody waits for something, or 200 µs.
    coalesce: bool = true, switch();
    /// Requests that a connection can have outstanding: 16 to 8192. Default 128.
    send_depth: u32 = 128, number(16, 8192);
    /// Bounds of the registration cache, which all workers of a process share on a device. Those of the first one
    /// count. Default: 16,384 entries, and 1 GiB or what the process may lock or use, whichever is less.
    cache: CacheLimits = CacheLimits::default(), cache_limits(), "ZCMI_REGISTRATION_CACHE";
    /// Which transport `auto://` addresses take: auto, shm, verbs, or tcp. Default auto, the best that leads to the peer.
    transport: TransportChoice = TransportChoice::Auto, transport();
    /// How to wait for completions. Default adaptive:20us.
    polling: Polling = Polling::Adaptive { spin: 20 * MICROSECOND }, polling();
    /// Bound of connecting and of accepting one peer: 1 ms to 24 h. Default 5 s.
    connect_timeout: Duration = 5 * SECOND, time(MILLISECOND, DAY);
    /// What a peer has to let go of a grant that is revoked, before it is taken back without its consent: 0 s to 24 h.
    /// Default 1 s.
    revoke_timeout: Duration = SECOND, time(Duration::ZERO, DAY);
    /// How long a connection may be silent before the peer is asked whether it is there: 0 s to 24 h. Default 1 s; with
    /// 0 s it is never asked.
    heartbeat: Duration = SECOND, time(Duration::ZERO, DAY);
    /// How long a peer may be silent, which is asked all the while, before the connection is ended: 1 ms to 24 h. Default 4 s. At
    /// least two heartbeats. What a library says waits behind what its program has posted: raise it where one end has more bytes of
    /// reads and writes outstanding than the network carries in that time, or where programs are stopped to be debugged.
    peer_timeout: Duration = 4 * SECOND, time(MILLISECOND, DAY);
    /// Connections that a worker has at most, with those in set-up: 1 to 1048576. Default 4096. More are refused.
    max_connections: u32 = 4096, number(1, 1 << 20);
    /// Connect requests that may wait at a listener, and be in set-up at once: 1 to 65535. Default 128.
    backlog: u16 = 128, number(1, u16::MAX as u64);
    /// How often the service thread publishes metrics: 0 s to 24 h. Default 0 s, never. Other than that needs the feature `metrics`, and 10 ms or
    /// more. Those of the process are published, whichever worker says so.
    metrics_interval: Duration = Duration::ZERO, time(Duration::ZERO, DAY);
    /// Whether the metrics of each connection are published too, with peer and number for labels: on or off. Default off. Each connection
    /// makes series of its own, for ever.
    metrics_per_connection: bool = false, switch();
}

/// Which transport an `auto://` address takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportChoice {
    /// Of those that lead to the peer: shared memory, verbs, TCP, in this order.
    Auto,
    /// Shared memory, or nothing.
    Shm,
    /// TCP.
    Tcp,
    /// RDMA, or nothing.
    Verbs,
}

/// How to wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Polling {
    /// Poll for the given time, then sleep until the device says that something is there. While several
    /// tasks wait on one worker, none of them polls.
    Adaptive {
        /// How long to poll before sleeping: up to 1 s.
        spin: Duration,
    },
    /// Poll all the time. Lowest latency, and one core at 100 % for as long as anybody waits.
    Busy,
    /// Never poll in a loop: sleep until the device says that something is there. Each wait costs system calls.
    Event,
}

impl Config {
    /// Settings to start from, one method for each.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The defaults, and what the environment says instead: a variable `ZCMI_…` for each setting, as the
    /// [table](crate::configuration_guide) has them. One that is empty says nothing; one that is unknown is warned
    /// about.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), with the variable, its value and what is allowed.
    pub fn from_env() -> Result<Self> {
        Self::builder().environment()?.build()
    }
}

/// Whether metrics can be had as it says.
fn check_metrics(config: &Config) -> Result<()> {
    let refuse = |detail| Err(Error::new(ErrorKind::Unsupported, "configure").with_detail(detail));
    match config.metrics_interval {
        Duration::ZERO => Ok(()),
        _ if !cfg!(feature = "metrics") => {
            refuse("metrics_interval is set, and zcmi was built without the feature `metrics`")
        }
        interval if interval < 10 * MILLISECOND => refuse("metrics_interval must be 0 s, or 10 ms to 24 h"),
        _ => Ok(()),
    }
}
