//! Two hosts between which RoCE's packets are lost and all others arrive, as behind a firewall. `tests/run` starts `zcmi serve` on the second
//! host, over RDMA at its usual port and all ways at the next.

use std::time::{Duration, Instant};

use crate::asking::{Undo, run, shell};
use crate::schema::Way;

/// The name, the TCP port, the connection: each within its bound, and what an emulated processor adds.
const BOUND: Duration = Duration::from_secs(3 * 8);

#[test]
fn udp_port_4791_is_dropped_on_the_way() {
    let Ok(host) = std::env::var("ZCMI_HOST2") else {
        eprintln!("SKIPPED: there are not two hosts; tests/run has them");
        return;
    };
    let way = ask(&format!("rdma://{host}"));
    assert!(way.ok && way.transport.as_deref() == Some("verbs"), "before: {way:#?}");

    let _undo = Undo("nft delete table inet zcmi_fault".to_owned());
    shell(
        "nft add table inet zcmi_fault; nft 'add chain inet zcmi_fault leaving { type filter hook output priority 0; }'; \
         nft 'add rule inet zcmi_fault leaving udp dport 4791 drop'",
    );
    let way = ask(&format!("rdma://{host}"));
    assert!(!way.ok && way.transport.is_none(), "{way:#?}");
    let last = way.steps.last().expect("a step");
    assert_eq!((last.step.as_str(), last.ok), ("connect", false), "{way:#?}");
    assert!(last.error.as_ref().is_some_and(|error| error.contains(&host)), "{way:#?}");
    assert!(last.hint.as_ref().is_some_and(|hint| hint.contains("let UDP port 4791 through")), "{way:#?}");

    // By all ways TCP is left, and why not verbs is told.
    let way = ask(&format!("{host}:7472"));
    assert!(way.ok && way.transport.as_deref() == Some("tcp"), "{way:#?}");
    assert!(way.passed_over.iter().any(|why| why.starts_with("verbs: ") && why.contains("UDP port 4791")), "{way:#?}");
}

/// Tries the way to a peer; the exit status says whether it works.
fn ask(peer: &str) -> Way {
    let begun = Instant::now();
    let output = run(&[env!("CARGO_BIN_EXE_zcmi"), "doctor", peer, "--format", "json"]);
    let way: Way = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.status.code(), Some(i32::from(!way.ok)), "{way:#?}");
    assert!(begun.elapsed() < BOUND, "{:?}: {way:#?}", begun.elapsed());
    println!("{peer}, {:?}: {way:#?}", begun.elapsed());
    way
}
