//! Ping-pong: the latency of messages, RDMA writes and RDMA reads between two processes, every byte checked.
//!
//! ```text
//! ping_pong                                   both ends, as two processes
//! ping_pong --bind rdma://192.0.2.1:7470      the server
//! ping_pong --connect rdma://192.0.2.1:7470   its client
//! ```

#[path = "../common/mod.rs"]
mod common;

mod case;
mod mailbox;
mod read;
mod report;
mod samples;
mod send;
mod write;

use std::process::ExitCode;

use clap::Parser;
use zcmi::Connection;

use case::{Case, Test};
use common::{Channel, Client, Ends, Format, Program, Progress, Result, parse_size};
use report::Report;
use samples::Samples;

/// Measures the latency of messages, RDMA writes and RDMA reads between two processes, and checks every byte.
///
/// Without --bind and --connect it runs both ends itself, as two processes.
#[derive(Parser)]
#[command(after_help = "\
What is measured:
  send   half of the round trip of a message of SIZE bytes and one that answers it
  write  half of the round trip of two RDMA writes: each end writes into the other's memory and polls its own,
         as ib_write_lat does (polling memory keeps a core busy whatever --polling says)
  read   the full time of one RDMA read, as ib_read_lat reports it; the other end does nothing

Every byte of every iteration, warm-up included, is compared with a pattern of seed, offset and iteration; memory
that is to be written holds the opposite of each byte before. This happens between the times that are taken.

Results go to standard output, everything else to standard error. Lengths: K is 1024 bytes, M is 1024 K.")]
struct Arguments {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "send,write,read")]
    test: Vec<Test>,

    /// Bytes to send, write or read; may be repeated
    #[arg(long, value_delimiter = ',', default_value = "64,4K,64K", value_parser = parse_size)]
    size: Vec<usize>,

    /// Iterations that are measured
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,

    /// Iterations before those [default: a tenth as many]
    #[arg(long, value_name = "ITERATIONS")]
    warm_up: Option<u32>,

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
    common::run(&arguments.ends, async |client: Client<'_, PingPong>| {
        let mut report = Report::new(arguments.format);
        for &test in &arguments.test {
            for &size in &arguments.size {
                let Arguments { iterations, seed, .. } = arguments;
                let warm_up = arguments.warm_up.unwrap_or(iterations / 10);
                let case = Case { test, size: size as u64, iterations, warm_up, seed };
                let measured = client.run(case).await?;
                report.add(&case, measured.transport, measured.outcome)?;
            }
        }
        Ok(())
    })
}

/// The example.
struct PingPong;

impl Program for PingPong {
    const NAME: &'static str = "ping_pong";
    type Case = Case;
    type Outcome = Samples;

    fn channel(case: &Case) -> std::result::Result<Channel, String> {
        case.channel()
    }

    fn is_one_sided(case: &Case) -> bool {
        case.test == Test::Read
    }

    async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Samples> {
        match case.test {
            Test::Read => read::measure(case, connection, progress).await,
            Test::Send => send::ping(case, connection, progress).await,
            Test::Write => write::ping(case, connection, progress).await,
        }
    }

    async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
        match case.test {
            Test::Read => read::serve(case, connection, progress).await,
            Test::Send => send::pong(case, connection, progress).await,
            Test::Write => write::pong(case, connection, progress).await,
        }
    }
}
