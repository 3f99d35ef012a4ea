//! libfabric: `fi_pingpong`, messages to and fro.

use std::path::Path;

use super::{Figure, Place, Plan, Ready, line, number};
use crate::bench::test::{Case, Measure, Test};

pub(super) fn plan(path: &Path, case: &Case, place: &Place, operations: u64) -> Option<Plan> {
    if (case.test, case.measure) != (Test::Send, Measure::Latency) {
        return None;
    }
    let (provider, endpoint) = match place.transport.as_str() {
        "shm" => ("shm", "rdm"),
        "tcp" => ("tcp", "msg"),
        "verbs" => ("verbs", "msg"),
        _ => return None,
    };
    let (size, iterations) = (case.size.to_string(), operations.clamp(100, 1_000_000).to_string());
    Some(Plan {
        name: "fi_pingpong",
        program: path.to_owned(),
        arguments: ["-p", provider, "-e", endpoint, "-S", &size, "-I", &iterations].map(str::to_owned).to_vec(),
        variables: Vec::new(),
        port: ("-B", "-P"),
        ready: Ready::Listens,
        address: place.address.clone(),
        parse,
    })
}

/// `bytes #sent #ack total time MB/sec usec/xfer Mxfers/sec`; numbers may end in k or m.
fn parse(output: &str, _: &Case) -> Result<Figure, String> {
    let head = line(output, |line| line.trim_start().starts_with("bytes"))?;
    let column = head.split_whitespace().position(|word| word == "usec/xfer");
    let column = column.ok_or_else(|| format!("its output has another format than is known: {:?}", head.trim()))?;
    let mut below = output.lines().skip_while(|line| *line != head).skip(1).filter(|line| !line.trim().is_empty());
    let line = below.next().ok_or("its output ends before the figures")?;
    Ok(Figure::Mean(number(line, column)? * 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { test: Test::Send, measure: Measure::Latency, size: 64, depth: 1 };
    // Of libfabric 1.17.
    const OUTPUT: &str = "\
bytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec
64      1k      =1k      125k        0.00s     49.06       1.30       0.77
";

    #[test]
    fn its_output_is_understood() {
        assert_eq!(parse(OUTPUT, &CASE), Ok(Figure::Mean(1300.0)));
        // Whatever it says before.
        assert_eq!(parse(&format!("libfabric: a warning\n\n{OUTPUT}"), &CASE), Ok(Figure::Mean(1300.0)));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for wrong in [
            String::new(),
            OUTPUT.replace("1.30", "x"),
            OUTPUT.replace("usec/xfer", "usec"),
            OUTPUT.lines().take(1).collect(),
            "64 1k".to_owned(),
        ] {
            assert!(parse(&wrong, &CASE).is_err(), "{wrong}");
        }
    }
}
