//! UCX: `ucx_perftest` with active messages.

use std::path::Path;

use super::{Figure, Place, Plan, line, number};
use crate::bench::test::{Case, Measure, Test};

pub(super) fn plan(path: &Path, case: &Case, place: &Place, operations: u64) -> Option<Plan> {
    let test = match (case.test, case.measure) {
        (Test::Send, Measure::Latency) => "ucp_am_lat",
        (Test::Send, Measure::Rate) => "ucp_am_bw",
        _ => return None,
    };
    let transports = match place.transport.as_str() {
        "shm" => "shm,self",
        "tcp" => "tcp,self",
        "verbs" => "rc,self",
        _ => return None,
    };
    let operations = operations.clamp(100.max(2 * case.depth as u64), 1_000_000);
    let (size, count, before) = (case.size.to_string(), operations.to_string(), (operations / 10).to_string());
    let mut arguments = ["-t", test, "-s", &size, "-n", &count, "-w", &before, "-f"].map(str::to_owned).to_vec();
    if case.measure == Measure::Rate {
        arguments.extend(["-O".to_owned(), case.depth.to_string()]);
    }
    let mut variables = vec![("UCX_TLS", transports.to_owned()), ("UCX_LOG_LEVEL", "error".to_owned())];
    // Its libraries lie beside it, unless it is the system's.
    let libraries = path.parent().and_then(Path::parent).map(|folder| folder.join("lib"));
    if let Some(libraries) = libraries.filter(|folder| folder.join("libucp.so.0").exists()) {
        variables.push(("LD_LIBRARY_PATH", libraries.display().to_string()));
    }
    Some(Plan {
        name: "ucx_perftest",
        program: path.to_owned(),
        arguments,
        variables,
        port: ("-p", "-p"),
        ready: None,
        address: place.address.clone(),
        parse,
    })
}

/// `Final: iterations p50 average overall MB/s MB/s messages/s messages/s`, where the last are the average and the overall one.
fn parse(output: &str, case: &Case) -> Result<Figure, String> {
    let line = line(output, |line| line.trim_start().starts_with("Final:") || columns_of_figures(line))?;
    let shift = usize::from(line.trim_start().starts_with("Final:"));
    if line.split_whitespace().count() != shift + 8 {
        return Err(format!("its output has another format than is known: {:?}", line.trim()));
    }
    Ok(match case.measure {
        Measure::Latency => Figure::Median(number(line, shift + 1)? * 1000.0),
        Measure::Rate => Figure::BytesPerSecond(number(line, shift + 7)? * case.size as f64),
    })
}

/// Older versions leave the first word out.
fn columns_of_figures(line: &str) -> bool {
    let mut words = line.split_whitespace();
    line.split_whitespace().count() == 8 && words.all(|word| word.parse::<f64>().is_ok())
}
