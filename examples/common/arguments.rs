//! The options that the examples share.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// Which end this process is, and how it waits.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Ends")]
pub(crate) struct Ends {
    /// Be the server: serve client after client, one at a time, until interrupted. auto:// is by all ways that there are;
    /// with rdma://, HOST is an address of an RDMA device, or 0.0.0.0; tcp:// needs none. Default port 7470. Or shm://NAME,
    /// for processes of this host
    #[arg(long, value_name = "SCHEME://HOST:PORT", conflicts_with = "connect")]
    pub(crate) bind: Option<String>,

    /// Be the client of the server there. Without --bind and --connect both ends run here, as two processes: over an
    /// RDMA device if there is one, else by the best way that there is
    #[arg(long, value_name = "SCHEME://HOST:PORT")]
    pub(crate) connect: Option<String>,

    /// With --bind: end after one client
    #[arg(long, requires = "bind")]
    pub(crate) once: bool,

    /// How to wait: poll all the time, or poll a little and then sleep. Each end has its own; a server with nothing
    /// to do sleeps
    #[arg(long, value_enum, default_value = "busy")]
    pub(crate) polling: Waiting,

    /// Give up when nothing has moved for so long; a lost packet can cost seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Log what happens on standard error
    #[arg(long)]
    pub(crate) verbose: bool,

    /// Started by the other end: prints its address, ends when standard input does.
    #[arg(long, hide = true, requires = "bind")]
    pub(crate) child: bool,
}

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Waiting {
    /// Poll a little, then sleep.
    Adaptive,
    /// Poll all the time.
    Busy,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// Aligned columns.
    Table,
}

impl Ends {
    /// How long nothing may move.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The options of the server process that this one starts, at `address`.
    pub(crate) fn of_server(&self, address: &str) -> Vec<String> {
        let mut options = ["--bind", address, "--once", "--child", "--polling"].map(str::to_owned).to_vec();
        options.push(match self.polling {
            Waiting::Adaptive => "adaptive".to_owned(),
            Waiting::Busy => "busy".to_owned(),
        });
        options.push(format!("--timeout={}", self.timeout));
        if self.verbose {
            options.push("--verbose".to_owned());
        }
        options
    }
}

impl Waiting {
    /// The worker's setting.
    pub(crate) fn polling(self) -> zcmi::Polling {
        match self {
            Self::Adaptive => zcmi::Config::default().polling,
            Self::Busy => zcmi::Polling::Busy,
        }
    }
}
