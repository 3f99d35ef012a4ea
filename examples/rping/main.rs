//! rping: RDMA ping-pong that speaks the protocol of librdmacm's `rping`, as its server and as its client.
//!
//! ```text
//! rping -s -a 192.0.2.1 -v            the server; `rping -c` of rdmacm-utils can be its client
//! rping -c -a 192.0.2.1 -v -V -C 10   the client; `rping -s` of rdmacm-utils can be its server
//! ```
//!
//! Each ping: the client fills a buffer with text and tells the server where it is and the key to it; the server reads
//! it by RDMA and says so; the client tells it of a second buffer; the server writes there what it has read, and says
//! so. The client compares the two.

mod client;
mod failure;
mod info;
mod server;
mod session;
mod text;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use failure::{Failure, Result};

/// RDMA ping-pong over rdma_cm, with the protocol and the options of librdmacm's rping.
#[derive(Parser)]
#[command(after_help = "\
The server waits for a client as long as it takes, and serves it until it disconnects; -C is the client's affair.
Exit status: 0 if all pings came back as they were sent, 1 otherwise, 2 for wrong options.")]
#[command(group = clap::ArgGroup::new("side").required(true))]
struct Arguments {
    /// Be the server
    #[arg(short, group = "side")]
    server: bool,

    /// Be the client
    #[arg(short, group = "side", requires = "address")]
    client: bool,

    /// The server's address; for the server, the address to bind [default: all of IPv4]
    #[arg(short)]
    address: Option<String>,

    /// The client's own address
    #[arg(short = 'I', value_name = "ADDRESS", conflicts_with = "server")]
    source: Option<String>,

    /// The server's port; 0 lets the kernel choose, and the server says which
    #[arg(short, default_value = "7174")]
    port: u16,

    /// Pings to send; 0 is without end
    #[arg(short = 'C', default_value = "0")]
    count: u32,

    /// Bytes of a ping; the server's is the most that it takes
    #[arg(short = 'S', default_value = "64", value_parser = clap::value_parser!(u32).range(23..=65535))]
    size: u32,

    /// Compare what comes back with what was sent; the server compares what it reads with what a client sends
    #[arg(short = 'V')]
    validate: bool,

    /// Print the data
    #[arg(short)]
    verbose: bool,

    /// Print what happens
    #[arg(short)]
    debug: bool,

    /// Serve client after client, several at a time, until killed
    #[arg(short = 'P', conflicts_with = "client")]
    persistent: bool,

    /// Make the queue pair without rdma_cm, which this program always does
    #[arg(short = 'q')]
    _own_queue_pair: bool,

    /// Seconds that any step may take once there is a connection or a request for one
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

/// What both sides need to know.
#[derive(Clone, Copy)]
struct Settings {
    size: usize,
    count: u32,
    validate: bool,
    verbose: bool,
    debug: bool,
    timeout: Duration,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rping: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let settings = Settings {
        size: arguments.size as usize,
        count: arguments.count,
        validate: arguments.validate,
        verbose: arguments.verbose,
        debug: arguments.debug,
        timeout: Duration::from_secs(arguments.timeout.into()),
    };
    let address = resolve(arguments.address.as_deref().unwrap_or("0.0.0.0"), arguments.port)?;
    if arguments.server {
        return server::run(address, arguments.persistent, settings);
    }
    let source = arguments.source.as_deref().map(|source| resolve(source, 0)).transpose()?;
    client::run(source, address, settings)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs().map_err(|error| Failure(format!("{host}: {error}")))?;
    found.next().ok_or_else(|| Failure(format!("{host} has no address")))
}
