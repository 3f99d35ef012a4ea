//! perftest: `ib_send_lat` and its like, over rdma_cm.

use std::path::Path;

use super::{Figure, Place, Plan, Ready, line, number};
use crate::bench::test::{Case, Measure, Test};

const NANOSECONDS: f64 = 1000.0;
const MEGA: f64 = 1e6;

/// `path` is that of `ib_send_lat`; the others lie beside it.
pub(super) fn plan(path: &Path, case: &Case, place: &Place, operations: u64) -> Option<Plan> {
    if place.transport != "verbs" {
        return None;
    }
    let name = match (case.test, case.measure) {
        (Test::CompareSwap | Test::FetchAdd, Measure::Latency) => "ib_atomic_lat",
        (Test::CompareSwap | Test::FetchAdd, Measure::Rate) => "ib_atomic_bw",
        (Test::Read, Measure::Latency) => "ib_read_lat",
        (Test::Read, Measure::Rate) => "ib_read_bw",
        (Test::Send, Measure::Latency) => "ib_send_lat",
        (Test::Send, Measure::Rate) => "ib_send_bw",
        (Test::Write, Measure::Latency) => "ib_write_lat",
        (Test::Write, Measure::Rate) => "ib_write_bw",
        (Test::CacheHit | Test::HandOver | Test::Register, _) => return None,
    };
    let mut arguments = vec!["-R".to_owned(), "-F".to_owned()];
    let operations = operations.clamp(100.max(2 * case.depth as u64), 1_000_000);
    arguments.extend(["-n".to_owned(), operations.to_string()]);
    match case.test {
        Test::CompareSwap => arguments.extend(["-A", "CMP_AND_SWAP"].map(str::to_owned)),
        Test::FetchAdd => arguments.extend(["-A", "FETCH_AND_ADD"].map(str::to_owned)),
        _ => arguments.extend(["-s".to_owned(), case.size.to_string()]),
    }
    if case.measure == Measure::Rate {
        arguments.extend(["-t".to_owned(), case.depth.to_string()]);
    }
    Some(Plan {
        name,
        program: path.with_file_name(name),
        arguments,
        variables: Vec::new(),
        port: ("-p", "-p"),
        ready: Ready::Says("aiting"),
        address: place.address.clone(),
        parse,
    })
}

/// Latency: bytes, iterations, least, greatest, typical, … Bandwidth: bytes, iterations, peak, average, millions of messages a second; these have
/// more digits than its megabytes.
fn parse(output: &str, case: &Case) -> Result<Figure, String> {
    let size = case.size.to_string();
    let line = line(output, |line| line.split_whitespace().next() == Some(size.as_str()))?;
    Ok(match case.measure {
        Measure::Rate => Figure::BytesPerSecond(number(line, 4)? * MEGA * case.size as f64),
        // It tells half of the time there and back; a write has ended when the peer has acknowledged it.
        Measure::Latency if case.test == Test::Write => Figure::Median(number(line, 4)? * 2.0 * NANOSECONDS),
        Measure::Latency => Figure::Median(number(line, 4)? * NANOSECONDS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of perftest 4.5 on Soft-RoCE.
    const LATENCY: &str = "\
Device not recognized to implement inline feature. Disabling it
---------------------------------------------------------------------------------------
                    Send Latency Test
 Dual-port       : OFF		Device         : rxe0
 Number of qps   : 1		Transport type : IB
 Mtu             : 4096[B]
 GID index       : 1
---------------------------------------------------------------------------------------
 local address: LID 0000 QPN 0x001e PSN 0xbf4dba
 GID: 00:00:00:00:00:00:00:00:00:00:255:255:192:00:02:01
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
 64      100          188.44         70472.51      367.89   	       7799.80     	-nan   		70472.51 		70472.51
---------------------------------------------------------------------------------------
";
    const BANDWIDTH: &str = "\
                    RDMA_Read BW Test
 Outstand reads  : 128
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 64         100              0.37               0.23   		   0.003805
---------------------------------------------------------------------------------------
";

    fn case(test: Test, measure: Measure) -> Case {
        Case { test, measure, size: 64, depth: 4 }
    }

    #[test]
    fn its_output_is_understood() {
        assert_eq!(parse(LATENCY, &case(Test::Send, Measure::Latency)), Ok(Figure::Median(367_890.0)));
        assert_eq!(parse(LATENCY, &case(Test::Write, Measure::Latency)), Ok(Figure::Median(2.0 * 367_890.0)));
        let Ok(Figure::BytesPerSecond(bytes)) = parse(BANDWIDTH, &case(Test::Read, Measure::Rate)) else {
            panic!("bytes")
        };
        assert!((bytes - 3805.0 * 64.0).abs() < 1.0, "{bytes}");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let case = case(Test::Send, Measure::Latency);
        for wrong in [
            String::new(),
            LATENCY.replace(" 64 ", " 65 "),
            LATENCY.replace("367.89", "fast"),
            LATENCY.replace("367.89", "-1"),
            LATENCY.replace("367.89", "nan"),
            LATENCY.replace("188.44         70472.51      367.89", "188.44").replace("70472.51", ""),
            "Couldn't connect to 192.0.2.1".to_owned(),
        ] {
            let error = parse(&wrong, &case).expect_err("it is not understood");
            assert!(error.contains("another format"), "{error}");
        }
    }

    #[test]
    fn it_measures_verbs_only_and_has_a_tool_for_each_test() {
        let plan_of = |transport: &str, case: &Case| {
            let place = Place { transport: transport.to_owned(), address: "192.0.2.1".to_owned() };
            plan(Path::new("/usr/bin/ib_send_lat"), case, &place, 7)
                .map(|plan| (plan.name, plan.program, plan.arguments.join(" ")))
        };
        assert_eq!(plan_of("tcp", &case(Test::Send, Measure::Latency)), None);
        assert_eq!(plan_of("verbs", &case(Test::Register, Measure::Latency)), None);
        let (name, program, arguments) = plan_of("verbs", &case(Test::CompareSwap, Measure::Rate)).expect("a plan");
        assert_eq!((name, program.as_path()), ("ib_atomic_bw", Path::new("/usr/bin/ib_atomic_bw")));
        assert_eq!(arguments, "-R -F -n 100 -A CMP_AND_SWAP -t 4");
    }
}
