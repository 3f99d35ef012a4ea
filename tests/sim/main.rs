//! The library on a simulated network, over many seeds.
//!
//! `cargo test --release --features internals --test sim`, with `-- --seeds N` or `ZCMI_SIM_SEEDS=N` for more of them.
//! `ZCMI_SIM_SEED=N` runs one seed and shows the end of its trace.

#[allow(dead_code, reason = "a part is for two processes, on a device")]
mod actor;
mod bulk;
mod cancelled;
mod coverage;
mod cycles;
mod determinism;
#[allow(dead_code, reason = "a part is for two processes, on a device")]
mod far;
mod idle;
mod ledger;
mod mix;
mod operations;
mod pattern;
mod planted;
mod points;
mod seeds;
#[allow(dead_code, reason = "a part is for two processes, on a device")]
mod session;
mod settings;
mod silence;
mod sizes;
mod slow_receiver;
mod world;

use std::process::ExitCode;
use std::time::Instant;

/// Seeds that are run when nobody says how many.
const SEEDS: u64 = 10_000;

/// Answers what it has seen, or what is wrong.
type Test<'a> = &'a dyn Fn() -> Result<String, String>;

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse() else { return ExitCode::from(2) };
    if let Some(seed) = arguments.seed {
        return seeds::replay(seed);
    }
    // What a task panics with is in the report.
    std::panic::set_hook(Box::new(|_| ()));
    let tests: [(&str, Test<'_>); 9] = [
        ("connections_come_and_go_without_growth", &cycles::connections_come_and_go_without_growth),
        ("the_same_seed_is_the_same_history", &determinism::the_same_seed_is_the_same_history),
        ("planted_bugs_are_found", &planted::planted_bugs_are_found),
        ("futures_dropped_at_each_point", &cancelled::futures_dropped_at_each_point),
        ("idle_connections_take_no_more_with_time", &idle::idle_connections_take_no_more_with_time),
        ("a_slow_receiver", &slow_receiver::a_slow_receiver_costs_its_sender_no_more_than_it_may),
        ("each_fault_at_each_point", &|| points::each_fault_at_each_point(arguments.seeds / 200)),
        ("silent_peers_are_noticed", &silence::silent_peers_are_noticed),
        ("random_mix", &|| seeds::random_mix(arguments.first, arguments.seeds)),
    ];
    let begun = Instant::now();
    let chosen =
        |(name, _): &&(&str, Test<'_>)| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.iter().filter(chosen) {
        let begun = Instant::now();
        match test() {
            Ok(report) => {
                passed += 1;
                println!("test {name} ... ok ({:.1} s)\n{report}", begun.elapsed().as_secs_f64());
            }
            Err(report) => {
                failed += 1;
                println!("test {name} ... FAILED\n{report}");
            }
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line and the environment say.
struct Arguments {
    /// The first seed of the mix, and how many.
    first: u64,
    seeds: u64,
    /// One seed alone.
    seed: Option<u64>,
    filter: Option<String>,
}

impl Arguments {
    fn parse() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let mut this = Self {
            first: number("ZCMI_SIM_FIRST").unwrap_or(1),
            seeds: number("ZCMI_SIM_SEEDS").unwrap_or(SEEDS),
            seed: number("ZCMI_SIM_SEED"),
            filter: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().and_then(|text| text.parse().ok());
            match argument.as_str() {
                "--seeds" => this.seeds = value()?,
                "--first" => this.first = value()?,
                "--seed" => this.seed = Some(value()?),
                // What libtest knows and means nothing here.
                "--test-threads" => drop(value()),
                option if option.starts_with('-') => {}
                filter => this.filter = Some(filter.to_owned()),
            }
        }
        Some(this)
    }
}
