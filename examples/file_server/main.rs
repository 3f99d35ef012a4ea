//! A file server: clients READ the chunks of files from the server's registered memory, verify them, and go on where they were
//! when a connection was lost.
//!
//! ```text
//! file_server serve --bind auto://192.0.2.1:7470 FOLDER
//! file_server list --connect auto://192.0.2.1:7470
//! file_server get --connect auto://192.0.2.1:7470 PATH
//! ```

#[path = "../common/tools.rs"]
mod common;

mod digest;
mod fetch;
mod lent;
mod part;
mod protocol;
mod remote;
mod root;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use common::{Failure, Result, complete, parse_size, print_line};
use fetch::{How, fetch};
use protocol::{LONGEST_CHUNK, MOST_CHUNKS, PAGE};
use remote::Place;

/// The program's name; the other end must have the same.
const NAME: &str = "file_server";
/// Names that are listed.
const MOST_NAMES: usize = 1 << 20;

/// Files from registered memory: the server reads chunks into it, and clients fetch them from there with one-sided READs.
#[derive(Parser)]
#[command(after_help = "\
Addresses are auto://HOST:PORT, rdma://HOST:PORT, tcp://HOST:PORT or shm://NAME; the default port is 7470.

Whoever reaches the address can read the files: there is no login. What leads out of the folder, by .. or by links, is refused, as
is all that is no ordinary file.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Log what happens on standard error
    #[arg(long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the files in a folder until interrupted
    Serve {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS", default_value = "auto://127.0.0.1")]
        bind: String,
        folder: PathBuf,
    },
    /// Fetch a file; goes on where an earlier fetch was when it ended
    Get(Get),
    /// List a folder
    List {
        #[command(flatten)]
        end: End,
        #[arg(default_value = ".")]
        path: String,
    },
}

/// The server to use, and how to print.
#[derive(Args)]
struct End {
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS", default_value = "auto://127.0.0.1")]
    connect: String,

    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// How long a server is waited for that is not there, or has gone
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=3600))]
    patience: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

#[derive(Args)]
struct Get {
    #[command(flatten)]
    end: End,

    /// The file, as the server calls it
    path: String,

    /// Where to put it [default: its name, here]. Until it is whole and verified it is FILE.part
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,

    /// Chunks that are fetched at once
    #[arg(long, value_name = "CHUNKS", default_value = "4", value_parser = clap::value_parser!(u64).range(1..=MOST_CHUNKS as u64 / 2))]
    in_flight: u64,

    /// Bytes of a chunk, up to 4M
    #[arg(long, value_name = "BYTES", default_value = "256K", value_parser = parse_chunk)]
    chunk_size: u64,

    /// Bytes a second at most
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    limit_rate: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(NAME, arguments.verbose, async {
        match arguments.command {
            Command::Serve { bind, folder } => server::run(&complete(&bind), &folder).await,
            Command::Get(get) => get.run().await,
            Command::List { end, path } => list(&end, &path).await,
        }
    })
}

impl Get {
    async fn run(&self) -> Result<()> {
        let target = self.target()?;
        if !self.overwrite && target.exists() {
            return Err(Failure::Other(format!("{}: it is there already; --overwrite replaces it", target.display())));
        }
        let how = How {
            in_flight: self.in_flight as usize,
            chunk: self.chunk_size,
            patience: self.end.patience(),
            rate: self.limit_rate.map(|rate| rate as u64),
        };
        let begun = Instant::now();
        let outcome = fetch(&Place::new(&complete(&self.end.connect))?, &self.path, &target, &how).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let digest: String = outcome.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.end.format {
            Format::Json => print_line(
                &json!({
                    "path": self.path,
                    "output": target.to_string_lossy(),
                    "transport": outcome.transport,
                    "length": outcome.length,
                    "chunks": outcome.chunks,
                    "fetched": outcome.fetched,
                    "resumed": outcome.resumed,
                    "damaged": outcome.damaged,
                    "begun_anew": outcome.anew,
                    "lost_connections": outcome.losses,
                    "sha256": digest,
                    "seconds": seconds,
                })
                .to_string(),
            ),
            Format::Text => print_line(&format!(
                "{}: {} bytes in {seconds:.2} s over {}, {} of {} chunks fetched, {} there already, {} damaged; SHA-256 {digest}",
                target.display(),
                outcome.length,
                outcome.transport,
                outcome.fetched,
                outcome.chunks,
                outcome.resumed,
                outcome.damaged,
            )),
        }
    }

    fn target(&self) -> Result<PathBuf> {
        let named = || Path::new(&self.path).file_name().map(PathBuf::from);
        let target = self.output.clone().or_else(named);
        target.ok_or_else(|| Failure::Other(format!("{:?} names no file", self.path)))
    }
}

impl End {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

async fn list(end: &End, path: &str) -> Result<()> {
    let remote = Place::new(&complete(&end.connect))?.connect(end.patience()).await?;
    let mut after = None;
    let mut listed = 0;
    loop {
        let page = remote.names(path, after.take()).await?;
        for name in &page {
            match (end.format, name.length) {
                (Format::Json, length) => print_line(&json!({ "name": name.name, "length": length }).to_string())?,
                (Format::Text, Some(length)) => print_line(&format!("{length:>14} {}", printable(&name.name)))?,
                (Format::Text, None) => print_line(&format!("{:>14} {}/", "", printable(&name.name)))?,
            }
        }
        listed += page.len();
        // A server that goes on for ever is not followed.
        match page.last() {
            Some(last) if page.len() >= PAGE && listed < MOST_NAMES => after = Some(last.name.clone()),
            _ => return remote.close().await,
        }
    }
}

/// A name without what a terminal would take for a command.
fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn parse_chunk(text: &str) -> std::result::Result<u64, String> {
    match parse_size(text)? as u64 {
        size @ 1..=LONGEST_CHUNK => Ok(size),
        _ => Err(format!("a chunk is at most {LONGEST_CHUNK} bytes")),
    }
}
