//! Many seeds of the mix, on all processors.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::coverage::Coverage;
use crate::mix::{self, Plan};
use crate::operations;

/// Failures that are told before the run is given up.
const MOST_FAILURES: usize = 10;
/// From so many seeds on, each operation and each fault must have happened.
const ENOUGH: u64 = 200;

/// Runs `count` seeds from `first` on.
pub(crate) fn random_mix(first: u64, count: u64) -> Result<String, String> {
    let next = AtomicU64::new(first);
    let (coverage, failures) = (Mutex::new(Coverage::default()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Coverage::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failures.lock().expect("no panic").len() >= MOST_FAILURES {
                        break;
                    }
                    match check(seed, 0, &mut mine) {
                        Ok(()) => {}
                        Err(why) => {
                            let line = format!("  ZCMI_SIM_SEED={seed}: {why}");
                            println!("{line}");
                            failures.lock().expect("no panic").push(line);
                        }
                    }
                }
                coverage.lock().expect("no panic").merge(mine);
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    if !failures.is_empty() {
        let how = "  to see one: ZCMI_SIM_SEED=N cargo test --release --features internals --test sim";
        return Err(format!("{} seeds failed\n{how}", failures.len()));
    }
    let coverage = coverage.into_inner().expect("no panic");
    let missing = coverage.missing(&operations::names(), &mix::faults());
    if count >= ENOUGH && !missing.is_empty() {
        return Err(format!("never happened: {}\n{coverage}", missing.join(", ")));
    }
    Ok(coverage.to_string())
}

/// Runs one seed and checks what can be checked at its end.
fn check(seed: u64, trace: usize, coverage: &mut Coverage) -> Result<(), String> {
    let plan = Plan { trace, ..Plan::of_seed(seed) };
    let is_faulty = plan.is_faulty;
    let run = mix::run(plan);
    coverage.add(&run.ledger, &run.statistics, run.time, is_faulty);
    let why = match (run.result, run.statistics.rnr, run.ledger.open()) {
        (Err(ended), ..) => ended.why,
        (_, 1.., _) => format!("{} messages found no receive, and no fault had caused it", run.statistics.rnr),
        (.., open) if !open.is_empty() => format!("not ended: {}", open.join(", ")),
        _ => return Ok(()),
    };
    Err([vec![why], run.trace].concat().join("\n"))
}

/// Runs one seed and shows the end of its trace if it fails.
pub(crate) fn replay(seed: u64) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    let mut coverage = Coverage::default();
    let lines = std::env::var("ZCMI_SIM_TRACE").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let result = check(seed, lines, &mut coverage);
    println!("{coverage}");
    match result {
        Ok(()) => {
            println!("seed {seed} passes");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("ZCMI_SIM_SEED={seed}: {why}");
            ExitCode::FAILURE
        }
    }
}
