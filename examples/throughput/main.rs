//! Throughput: bandwidth and message rate between two processes, with a window of operations in flight.
//!
//! ```text
//! throughput                                   both ends, as two processes
//! throughput --bind rdma://192.0.2.1:7470      the server
//! throughput --connect rdma://192.0.2.1:7470   its client
//! ```

#[path = "../common/mod.rs"]
mod common;

mod bar;
mod case;
mod limit;
mod messages;
mod pace;
mod reads;
mod region;
mod report;
mod stamp;
mod window;
mod writes;

use std::process::ExitCode;

use clap::Parser;
use zcmi::Connection;

use case::{Case, Test, default_depth};
use common::{Channel, Client, Ends, Format, Program, Progress, Result, parse_size};
use limit::Limit;
use pace::Moved;
use report::Report;

/// Measures bandwidth and message rate between two processes, with many operations in flight.
///
/// Without --bind and --connect it runs both ends itself, as two processes.
#[derive(Parser)]
#[command(after_help = "\
What is measured:
  send   messages from client to server, until the server has received the last one
  write  RDMA writes into the server's memory, until the last is placed there
  read   RDMA reads of the server's memory, until the last is here
One window of operations comes before the time that is taken.

What is checked, against a pattern of seed and offset and the operation's number in the first 8 bytes:
  send   every byte of every message, by the server as it receives it
  write  every byte of the server's memory at the end: each slot has what was written there last
  read   the first and the last 8 bytes of every read, and every byte of one more window of reads at the end
Memory that is to be written holds the opposite of each checked byte before.

Messages are posted one by one in this version: --batch counts for writes and reads. A window of messages is as
long as the server has receives. Each end takes DEPTH * SIZE bytes of registered memory.

Results go to standard output, everything else to standard error. Lengths: K is 1024 bytes, M is 1024 K;
MB/s are 10^6 bytes per second.")]
struct Arguments {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "send,write,read")]
    test: Vec<Test>,

    /// Bytes of an operation; may be repeated
    #[arg(long, value_delimiter = ',', default_value = "64,4K,64K", value_parser = parse_size)]
    size: Vec<usize>,

    /// Operations in flight [default: 128, fewer where they were more than 64 MiB]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: Option<u32>,

    /// Operations posted together [default: 16, or DEPTH if that is less]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Option<u32>,

    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value = "1", conflicts_with = "iterations")]
    duration: f64,

    /// Operations of each measurement, instead of a duration
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    /// Seed of the pattern
    #[arg(long, default_value = "1")]
    seed: u64,

    /// How to print the results
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    // Last, for its heading would cover what follows.
    #[command(flatten)]
    ends: Ends,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = match Limit::new(arguments.iterations, arguments.duration) {
        Ok(limit) => limit,
        Err(reason) => clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{reason}\n")).exit(),
    };
    common::run(&arguments.ends, async |client: Client<'_, Throughput>| {
        let mut report = Report::new(arguments.format);
        for &test in &arguments.test {
            for &size in &arguments.size {
                let depth = arguments.depth.unwrap_or_else(|| default_depth(size));
                let batch = arguments.batch.unwrap_or(16).min(depth);
                let case = Case { test, size: size as u64, depth, batch, limit, seed: arguments.seed };
                let measured = client.run(case).await?;
                report.add(&case, measured.transport, measured.outcome)?;
            }
        }
        Ok(())
    })
}

/// The example.
struct Throughput;

impl Program for Throughput {
    const NAME: &'static str = "throughput";
    type Case = Case;
    type Outcome = Moved;

    fn channel(case: &Case) -> std::result::Result<Channel, String> {
        case.channel()
    }

    fn is_one_sided(case: &Case) -> bool {
        case.is_one_sided()
    }

    async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Moved> {
        match case.test {
            Test::Read => reads::measure(case, connection, progress).await,
            Test::Send => messages::measure(case, connection, progress).await,
            Test::Write => writes::measure(case, connection, progress).await,
        }
    }

    async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
        match case.test {
            Test::Read => reads::serve(case, connection, progress).await,
            Test::Send => messages::serve(case, connection, progress).await,
            Test::Write => writes::serve(case, connection, progress).await,
        }
    }
}
