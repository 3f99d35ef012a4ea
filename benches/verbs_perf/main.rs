//! The verbs layer at what perftest measures, by either tier, and without it: see `benches/README.md`. `--help` tells
//! the options.

#![allow(unsafe_code, reason = "the unsafe tier and raw verbs; each block carries its proof")]

mod bandwidth;
mod clock;
mod count;
mod latency;
mod link;
mod owned;
mod plain;
mod raw;
mod tier;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use zcmi::verbs::{ExposedPart, RegisteredBuffer};

use tier::{Place, Tier, Work};

/// Measures the verbs layer between two processes on one device, or counts in one.
#[derive(Parser)]
struct Arguments {
    /// What to measure.
    #[arg(long, value_enum, default_value = "latency")]
    measure: Measure,
    /// What a request does.
    #[arg(long, value_enum, default_value = "send")]
    test: Test,
    /// How requests are posted.
    #[arg(long, value_enum, default_value = "safe")]
    tier: Which,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Operations.
    #[arg(long, default_value_t = 1000)]
    iterations: u32,
    /// Requests that are posted in one call, for the bandwidth.
    #[arg(long, default_value_t = 1)]
    list: u32,
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
    /// Many operations at a time.
    Bandwidth,
    /// Nothing: makes each operation, for a program that counts its instructions.
    Count,
    /// One operation at a time.
    Latency,
}

#[derive(Clone, Copy, ValueEnum)]
enum Test {
    Read,
    Send,
    Write,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// The C inline functions, without this library.
    Raw,
    /// `OwningQueue`.
    Safe,
    /// `QueuePair`.
    Unsafe,
}

/// Larger messages of the safe tier share their memory, as those of perftest do: a buffer for each of 128 would
/// measure caches.
const OWN_MEMORY: usize = 8192;

fn main() {
    let arguments = Arguments::parse();
    let Some(place) = Place::find() else {
        eprintln!("there is no RDMA device; run it under soft-roce-setup/run");
        return;
    };
    let limit = Duration::from_secs(arguments.limit);
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("verbs_perf: not done within {limit:?}");
        std::process::exit(1);
    });
    match arguments.tier {
        Which::Raw => run::<raw::Raw>(&place, &arguments),
        Which::Unsafe => run::<plain::Plain>(&place, &arguments),
        Which::Safe if arguments.size <= OWN_MEMORY => run::<owned::Owned<RegisteredBuffer>>(&place, &arguments),
        Which::Safe => run::<owned::Owned<ExposedPart>>(&place, &arguments),
    }
}

fn run<T: Tier>(place: &Place, arguments: &Arguments) {
    let &Arguments { measure, test, size, iterations, list, .. } = arguments;
    let work = match test {
        Test::Read => Work::Read,
        Test::Send => Work::Send,
        Test::Write => Work::Write,
    };
    if measure == Measure::Latency && work == Work::Write && size > tier::INLINE as usize {
        eprintln!("verbs_perf: the latency of writes is that of inline ones, up to {} bytes", tier::INLINE);
        std::process::exit(2);
    }
    if arguments.server {
        match measure {
            Measure::Bandwidth => bandwidth::server::<T>(place, work, size),
            Measure::Count | Measure::Latency => latency::server::<T>(place, work, size, iterations),
        }
    }
    let figures = match measure {
        Measure::Bandwidth => bandwidth::client::<T>(place, work, size, list, iterations),
        Measure::Count => count::run::<T>(place, iterations),
        Measure::Latency => latency::client::<T>(place, work, size, iterations),
    };
    println!("{}", report(arguments, figures));
}

/// The figures with what they are of.
fn report(arguments: &Arguments, figures: Value) -> Value {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let mut line = json!({
        "test": name(arguments.test.to_possible_value()),
        "transport": "verbs",
        "tier": name(arguments.tier.to_possible_value()),
        "size": arguments.size,
    });
    if let (Value::Object(line), Value::Object(figures)) = (&mut line, figures) {
        line.extend(figures);
    }
    line
}
