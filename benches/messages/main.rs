//! Messages and connections at what perftest and rdma_cm measure: see `benches/README.md`. `--help` tells the options.

#![allow(unsafe_code, reason = "an allocator that counts, and peers that are trusted; the blocks carry their proof")]

mod connect;
mod count;
mod hand_over;
mod idle;
mod latency;
mod live;
mod peer;
mod rate;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use zcmi::{Config, Polling};

/// Measures messages between two processes on one device, or connections.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// What to measure.
    #[arg(long, value_enum, default_value = "rate")]
    measure: Measure,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Messages, or connections.
    #[arg(long, default_value_t = 10_000)]
    iterations: u32,
    /// Messages that are sent and not answered, at most.
    #[arg(long, default_value_t = 64)]
    depth: u32,
    /// Messages that are sent before they are received, where instructions are counted.
    #[arg(long, default_value_t = 1)]
    burst: u32,
    /// A frame for each message.
    #[arg(long)]
    no_coalescing: bool,
    /// By which functions a latency is measured.
    #[arg(long, value_enum, default_value = "async")]
    api: Api,
    /// Connections that carry nothing on the same workers, where a latency is measured.
    #[arg(long, default_value_t = 0)]
    idle: u32,
    /// How both ends wait.
    #[arg(long, value_enum, default_value = "busy")]
    polling: Waiting,
    /// What carries them; connecting is measured over rdma only.
    #[arg(long, value_enum, default_value = "rdma")]
    transport: Carrier,
    /// Seconds after which it gives up.
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Plays the server; the program starts it itself.
    #[arg(long, hide = true)]
    server: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Connecting and being accepted, one after the other, next to rdma_cm alone.
    Connect,
    /// Nothing: round trips with both ends in one thread, for a program that counts instructions.
    Count,
    /// A buffer that is handed to and fro: 64 B, 8 KiB, 1 MiB.
    HandOver,
    /// The memory that connections take which carry nothing.
    Idle,
    /// One message at a time, to and fro.
    Latency,
    /// Many messages at a time.
    Rate,
}

#[derive(Clone, Copy, ValueEnum)]
enum Api {
    Async,
    Blocking,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Waiting {
    Adaptive,
    Busy,
    Event,
}

#[derive(Clone, Copy, ValueEnum)]
enum Carrier {
    Rdma,
    Shm,
    Tcp,
}

impl Arguments {
    /// Where its server listens. None without the device that it takes.
    fn place(&self) -> Option<String> {
        match self.transport {
            Carrier::Rdma => std::env::var("ZCMI_HOST1").ok().map(|address| format!("rdma://{address}:0")),
            Carrier::Shm => Some(format!("shm://zcmi-bench-{}", std::process::id())),
            Carrier::Tcp => Some("tcp://127.0.0.1:0".to_owned()),
        }
    }

    fn config(&self) -> Config {
        let polling = match self.polling {
            Waiting::Adaptive => Config::default().polling,
            Waiting::Busy => Polling::Busy,
            Waiting::Event => Polling::Event,
        };
        // What is counted does not depend on the time that it takes.
        let heartbeat = if self.measure == Measure::Count { Duration::ZERO } else { Config::default().heartbeat };
        Config { polling, coalesce: !self.no_coalescing, heartbeat, ..Config::default() }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let Some(place) = arguments.place() else {
        eprintln!("ZCMI_HOST1 is not set, the address of an RDMA device; soft-roce-setup/run gives one");
        return;
    };
    let limit = Duration::from_secs(arguments.limit);
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("messages: not done within {limit:?}");
        std::process::exit(1);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let figures = runtime.block_on(async {
        match (arguments.measure, arguments.server) {
            (Measure::Connect, false) => connect::client(&arguments, &place).await,
            (Measure::Connect, true) => connect::server(&arguments, &place).await,
            (Measure::Count, _) => count::run(&arguments, &place).await,
            (Measure::HandOver, false) => hand_over::client(&arguments).await,
            (Measure::HandOver, true) => hand_over::server(&arguments, &place).await,
            (Measure::Idle, _) => idle::run(&arguments, &place).await,
            (Measure::Latency, false) => latency::client(&arguments).await,
            (Measure::Latency, true) => latency::server(&arguments, &place).await,
            (Measure::Rate, false) => rate::client(&arguments).await,
            (Measure::Rate, true) => rate::server(&arguments, &place).await,
        }
    });
    if !figures.is_null() {
        println!("{figures}");
    }
}
