//! A key-value store: clients read the server's table with one-sided READs, and change it by calls.
//!
//! ```text
//! key_value serve --bind auto://192.0.2.1:7470
//! key_value put --connect auto://192.0.2.1:7470 KEY VALUE
//! key_value get --connect auto://192.0.2.1:7470 KEY
//! key_value load --connect auto://192.0.2.1:7470 --clients 4 --seconds 5
//! ```

#[path = "../common/tools.rs"]
mod common;

mod load;
#[path = "../../src/bin/zcmi/plot/mod.rs"]
mod plot;
mod protocol;
mod server;
mod slot;
mod store;
mod table;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use common::{Failure, Result, complete, print_bytes, print_line};
use store::Store;

/// The program's name; the other end must have the same.
const NAME: &str = "key_value";
/// How long a server is waited for that is not there yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// A key-value store in the memory of one process. GET reads that memory with one-sided READs; PUT and DELETE are calls.
#[derive(Parser)]
#[command(after_help = "\
Addresses are auto://HOST:PORT, rdma://HOST:PORT, tcp://HOST:PORT or shm://NAME; the default port is 7470.

A key has 1 to 256 bytes; a key and its value have at most 992 together, since each entry is one slot of 1 KiB. The
table is in memory: it is empty after the server was started again.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Log what happens on standard error
    #[arg(long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a table until interrupted
    Serve {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS", default_value = "auto://127.0.0.1")]
        bind: String,
        /// Entries that there is to be room for, each of which takes 1.25 KiB of registered memory
        #[arg(long, default_value = "4096", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
        entries: u64,
    },
    /// Print the value of a key; exit status 1 if there is none
    Get {
        #[command(flatten)]
        end: End,
        key: OsString,
    },
    /// Put the value of a key
    Put {
        #[command(flatten)]
        end: End,
        key: OsString,
        value: OsString,
    },
    /// Delete a key; exit status 1 if there is none
    Delete {
        #[command(flatten)]
        end: End,
        key: OsString,
    },
    /// Read and put as fast as it goes, check every value that is read, print rates and latencies
    Load(load::Options),
}

/// The server to use, and how to print.
#[derive(Args, Clone)]
struct End {
    /// Where the server listens
    #[arg(long, value_name = "ADDRESS", default_value = "auto://127.0.0.1")]
    connect: String,

    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(NAME, arguments.verbose, async {
        match arguments.command {
            Command::Serve { bind, entries } => server::run(&complete(&bind), entries).await,
            Command::Get { end, key } => get(&end, key.into_vec()).await,
            Command::Put { end, key, value } => put(&end, key.into_vec(), value.into_vec()).await,
            Command::Delete { end, key } => delete(&end, key.into_vec()).await,
            Command::Load(options) => load::run(&options).await,
        }
    })
}

impl End {
    async fn store(&self) -> Result<Store> {
        let mut store = Store::new(&Store::worker()?, &complete(&self.connect));
        store.ready(PATIENCE).await?;
        Ok(store)
    }

    /// Prints a result as JSON, or what `text` is.
    fn print(&self, json: &serde_json::Value, text: Option<&[u8]>) -> Result<()> {
        match (self.format, text) {
            (Format::Json, _) => print_line(&json.to_string()),
            (Format::Text, Some(text)) => print_bytes(text),
            (Format::Text, None) => Ok(()),
        }
    }
}

async fn get(end: &End, key: Vec<u8>) -> Result<()> {
    let mut store = end.store().await?;
    let value = store.get(&key).await?;
    // How it was found out: by READs alone, or with the server's help.
    let by = if store.counts().asked == 0 { "read" } else { "call" };
    let shown = value.as_deref().map(String::from_utf8_lossy);
    let json =
        json!({ "key": String::from_utf8_lossy(&key), "value": shown, "by": by, "transport": store.transport() });
    end.print(&json, value.as_deref())?;
    store.close().await?;
    value.map(|_| ()).ok_or_else(|| no_such(&key))
}

async fn put(end: &End, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    let mut store = end.store().await?;
    store.put(&key, &value).await?;
    let json = json!({ "key": String::from_utf8_lossy(&key), "length": value.len(), "transport": store.transport() });
    end.print(&json, None)?;
    store.close().await
}

async fn delete(end: &End, key: Vec<u8>) -> Result<()> {
    let mut store = end.store().await?;
    let was_there = store.delete(&key).await?;
    let json = json!({ "key": String::from_utf8_lossy(&key), "deleted": was_there, "transport": store.transport() });
    end.print(&json, None)?;
    store.close().await?;
    if was_there { Ok(()) } else { Err(no_such(&key)) }
}

fn no_such(key: &[u8]) -> Failure {
    Failure::Other(format!("there is no key {:?}", String::from_utf8_lossy(key)))
}
