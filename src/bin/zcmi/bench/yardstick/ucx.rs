//! UCX: `ucx_perftest` with active messages.

use std::path::Path;

use super::{Figure, Place, Plan, Ready, line, number};
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
        ready: Ready::Listens,
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

#[cfg(test)]
mod tests {
    use super::*;

    // Of UCX 1.13.
    const OUTPUT: &str = "\
+--------------+--------------+------------------------------+---------------------+-----------------------+
|              |              |        latency (usec)        |   bandwidth (MB/s)  |  message rate (msg/s) |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
|    Stage     | # iterations | 50.0%ile | average | overall |  average |  overall |  average  |  overall  |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
Final:                 10000      0.145     0.157     0.157      388.26     388.26     6361271     6361271
";

    fn case(measure: Measure) -> Case {
        Case { test: Test::Send, measure, size: 64, depth: 4 }
    }

    #[test]
    fn its_output_is_understood() {
        for output in [OUTPUT.to_owned(), OUTPUT.replace("Final:", "")] {
            assert_eq!(parse(&output, &case(Measure::Latency)), Ok(Figure::Median(145.0)));
            assert_eq!(parse(&output, &case(Measure::Rate)), Ok(Figure::BytesPerSecond(6_361_271.0 * 64.0)));
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for wrong in [
            String::new(),
            OUTPUT.replace("0.145", "x"),
            OUTPUT.replace(" 6361271     6361271", " 6361271"),
            OUTPUT.replace("Final:", "End:"),
        ] {
            assert!(parse(&wrong, &case(Measure::Latency)).is_err(), "{wrong}");
        }
    }
}
