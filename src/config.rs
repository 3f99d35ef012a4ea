//! Settings of a worker.

use std::time::Duration;

use crate::{CacheLimits, Error, ErrorKind, Result};

/// How a worker's connections wait and how much memory they use. Start from `Config::default()`.
///
/// ```
/// let config = zcmi::Config { polling: zcmi::Polling::Busy, ..Default::default() };
/// let worker = zcmi::Worker::new(config)?;
/// # Ok::<(), zcmi::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest message, in bytes: 1 to 1 GiB. Default 8 KiB. The smaller value of both sides counts. Longer data goes
    /// by [`write`](crate::Connection::write) and [`read`](crate::Connection::read).
    pub max_message_size: u32,
    /// Messages that can wait here until they are received: 1 to 8192. Default 64. Each takes `max_message_size`
    /// bytes of registered memory per connection.
    pub receive_depth: u32,
    /// Requests that a connection can have outstanding: 16 to 8192. Default 128.
    pub send_depth: u32,
    /// Bounds of the registration cache, which all workers of a process share on a device; those of the first one count.
    /// Default: 16,384 entries, and 1 GiB or what the process may lock or use, whichever is less.
    pub cache: CacheLimits,
    /// How to wait. Default adaptive.
    pub polling: Polling,
    /// Bound of connecting and of accepting one peer. Default 5 s.
    pub connect_timeout: Duration,
    /// What a peer has to let go of a grant that is revoked, before it is taken back without its consent: up to a day.
    /// Default 1 s.
    pub revoke_timeout: Duration,
    /// Connect requests that may wait at a listener, and be in set-up at once. Default 128.
    pub backlog: u16,
}

/// How to wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Polling {
    /// Poll for the given time, then sleep until the device says that something is there. While several
    /// tasks wait on one worker, none of them polls.
    Adaptive {
        /// How long to poll before sleeping.
        spin: Duration,
    },
    /// Poll all the time. Lowest latency, and one core at 100 % for as long as anybody waits.
    Busy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_size: 8 * 1024,
            receive_depth: 64,
            send_depth: 128,
            cache: CacheLimits::default(),
            polling: Polling::Adaptive { spin: Duration::from_micros(20) },
            connect_timeout: Duration::from_secs(5),
            revoke_timeout: Duration::from_secs(1),
            backlog: 128,
        }
    }
}

impl Config {
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), naming the field and its bounds.
    pub(crate) fn validate(&self) -> Result<()> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let detail = format!("{name} is {value}, must be {least} to {most}");
            Err(Error::new(ErrorKind::Unsupported, "configure").with_detail(detail))
        };
        within("max_message_size", self.max_message_size.into(), 1, 1 << 30)?;
        within("receive_depth", self.receive_depth.into(), 1, 8192)?;
        within("send_depth", self.send_depth.into(), 16, 8192)?;
        within("backlog", self.backlog.into(), 1, u16::MAX.into())?;
        let most = 24 * 3600 * 1000;
        within("revoke_timeout (ms)", self.revoke_timeout.as_millis() as u64, 0, most)?;
        within("connect_timeout (ms)", self.connect_timeout.as_millis() as u64, 1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_named() {
        assert!(Config::default().validate().is_ok());
        for (config, name) in [
            (Config { max_message_size: 0, ..Default::default() }, "max_message_size is 0"),
            (Config { receive_depth: 9000, ..Default::default() }, "receive_depth is 9000"),
            (Config { send_depth: 1, ..Default::default() }, "send_depth is 1"),
            (Config { backlog: 0, ..Default::default() }, "backlog is 0"),
            (Config { connect_timeout: Duration::ZERO, ..Default::default() }, "connect_timeout"),
        ] {
            let error = config.validate().expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
