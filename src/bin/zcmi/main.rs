//! `zcmi`: what there is on this host, what is wrong with it, whether a peer can be reached, and how fast. `docs/tool.md` tells the rest.

mod bench;
mod doctor;
mod exchange;
mod host;
mod info;
mod output;
mod peer;
mod plot;
mod serve;
mod tethered;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use host::Host;
use output::Output;

/// Looks at what zcmi runs on: devices, transports, limits, and the way to a peer.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Exit status: 0 all well, 1 problems or failure, 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure latency, bandwidth and rate, between two processes of this host or against `zcmi serve`
    Bench(Box<bench::Options>),
    /// Print a script that completes this command's words in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Check this host, or the way to a peer that runs `zcmi serve`
    Doctor {
        /// The peer: HOST, HOST:PORT or an address such as tcp://HOST:PORT or shm://NAME; without it, this host is checked
        peer: Option<String>,
        /// This host is to have RDMA: that it has none is a problem
        #[arg(long, conflicts_with = "peer")]
        rdma: bool,
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Show devices, ports, GIDs, limits, transports and versions
    Info {
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Answer `zcmi doctor HOST` and `zcmi bench --peer HOST`, until SIGINT or SIGTERM
    Serve {
        /// Where to listen: auto://, rdma:// or tcp://HOST:PORT, shm://NAME or shm:///PATH
        #[arg(default_value = exchange::DEFAULT_ADDRESS)]
        address: String,
        /// End when one peer has been served
        #[arg(long)]
        once: bool,
        /// How to print what happens
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        #[command(flatten)]
        of_bench: serve::OfBench,
    },
    /// Run PROGRAM, and have it end with the process that started it
    #[command(hide = true)]
    Tethered {
        /// That process
        parent: i32,
        /// What to run, with its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Objects of JSON, one a line
    Json,
    /// Text
    Text,
}

fn main() -> ExitCode {
    let host = Host::this();
    match Arguments::parse().command {
        Command::Bench(options) => bench::run(&host, *options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "zcmi", &mut script);
            Output::new(Format::Text).print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Command::Doctor { peer: Some(address), format, .. } => peer::run(&address, Output::new(format)),
        Command::Doctor { peer: None, rdma, format } => doctor::run(&host, rdma, Output::new(format)),
        Command::Info { format } => info::run(&host, Output::new(format)),
        Command::Serve { address, once, format, of_bench } => serve::run(&address, once, of_bench, Output::new(format)),
        Command::Tethered { parent, command } => tethered::run(parent, &command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }
}
