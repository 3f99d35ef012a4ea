//! The load generator: many clients that read and put, and check every value.

mod book;
mod client;
mod drawing;
mod keys;
mod report;
mod tally;
mod value;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::End;
use crate::common::{Failure, Result, complete};
use crate::slot::fits;
use crate::store::Store;

use book::Book;
use client::LoadClient;
use keys::{Distribution, Keys};
use report::Report;
use tally::Tally;

/// What to do.
#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    end: End,

    /// Clients at once, each with a connection of its own
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(1..=1024))]
    clients: u64,

    /// Of 100 operations, how many are GETs
    #[arg(long, value_name = "PERCENT", default_value = "95", value_parser = clap::value_parser!(u32).range(0..=100))]
    reads: u32,

    /// Keys that are used; each is put by one of the clients and read by all
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    keys: u64,

    /// What their names begin with; two of these programs at once need two
    #[arg(long, default_value = "load")]
    prefix: String,

    /// How often which of them is used
    #[arg(long, value_enum, default_value = "zipf")]
    distribution: Distribution,

    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = clap::value_parser!(u64).range(value::SHORTEST as u64..=1024))]
    value_size: u64,

    /// How long, after each key was put once
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// How long a server is waited for that has gone
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=3600))]
    patience: u64,

    /// Draw throughput over time and latencies into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What all clients share.
struct Shared {
    options: Options,
    book: Book,
    keys: Keys,
}

impl Options {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }

    /// The key of a number.
    fn name(&self, key: usize) -> Vec<u8> {
        format!("{}-{key:07}", self.prefix).into_bytes()
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Runs all clients, prints what came of it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (count, value_size) = (options.keys as usize, options.value_size as usize);
    fits(&options.name(count - 1), &vec![0; value_size])?;
    let shared = Arc::new(Shared {
        options: options.clone(),
        book: Book::new(count, value_size),
        keys: Keys::new(options.distribution, count),
    });
    // Of one worker: who waits for one of the connections polls for all.
    let worker = Store::worker()?;
    let address = complete(&options.end.connect);
    let mut tasks = JoinSet::new();
    for number in 0..options.clients as usize {
        let store = Store::new(&worker, &address);
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut client = LoadClient::new(shared, number, store);
            client.fill().await?;
            Ok::<_, Failure>(client)
        });
    }
    let clients = all(&mut tasks).await?;
    let transport = clients.iter().find_map(LoadClient::transport).unwrap_or("none");

    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for client in clients {
        tasks.spawn(client.run(begun));
    }
    let mut total = Tally::new(options.duration());
    for tally in all(&mut tasks).await? {
        total.add(&tally);
    }
    let report = Report::new(options, transport, begun.elapsed(), total);
    report.print()?;
    options.plot.as_ref().map_or(Ok(()), |path| report.draw(path))
}

/// What all tasks answer. The first failure ends the others.
async fn all<T: 'static>(tasks: &mut JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        results.push(ended.map_err(|error| Failure::Other(format!("a client ended: {error}")))??);
    }
    Ok(results)
}
