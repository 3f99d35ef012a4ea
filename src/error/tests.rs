use super::*;

fn full(kind: ErrorKind) -> Error {
    let gid = "::ffff:192.0.2.2".parse().ok();
    Error::new(kind, "write").with_peer("192.0.2.1:7").with_device("rxe0").with_gid(gid).with_detail("why")
}

#[test]
fn one_line_tells_all_there_is_to_know() {
    let error = full(ErrorKind::ConnectionRefused).within("connect").with_source("reject reason 8");
    assert_eq!(
        error.to_string(),
        "connect 192.0.2.1:7 (rxe0, GID ::ffff:192.0.2.2): nobody listens there: why: reject reason 8. Hint: start the peer first, and \
         check the port"
    );
    assert_eq!(error.again("send").operation(), "send");
    assert_eq!(error.again("send").peer(), Some("192.0.2.1:7"));
    assert_eq!(error.again("send").gid(), error.gid());
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn every_kind_says_operation_peer_device_gid_cause_and_hint_in_one_line() {
    let mut said = std::collections::HashSet::new();
    for (place, kind) in ErrorKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, place, "{kind:?}");
        let mut hints = std::collections::HashSet::new();
        for device in ["rxe0", "tcp", "shm"] {
            let mut error = full(kind);
            error.0.device = Some(device.to_owned());
            let hint = error.hint().expect("a hint");
            let text = error.to_string();
            let start = format!("write 192.0.2.1:7 ({device}, GID ::ffff:192.0.2.2): {kind}: why. Hint: {hint}");
            assert_eq!(text, start);
            assert!(!text.contains('\n') && !text.contains("  ") && !hint.ends_with('.'), "{text}");
            if device != "rxe0" {
                assert!(!hint.contains("4791") && !hint.contains("RDMA needs"), "{text}");
            }
            hints.insert(hint);
        }
        assert!(said.insert(kind.to_string()), "{kind:?} is told as another is");
    }
}

#[test]
fn what_is_told_by_the_end_of_its_connection_does_not_name_itself() {
    for name in ["grant", "receive", "revoke", "send"] {
        let ending = Error::new(ErrorKind::ConnectionBroken, "connection").after(name);
        let (own, other) = (ending.again(name), ending.again("read"));
        assert_eq!((own.first_failure(), other.first_failure()), (None, Some(name)), "{own}, {other}");
        assert!(own.to_string().starts_with(&format!("{name}: the connection")), "{own}");
    }
    // Each of these is told of its own failure before.
    assert_eq!(Error::new(ErrorKind::ConnectionBroken, "read").after("read").first_failure(), Some("read"));
}

#[test]
fn what_ended_with_the_connection_names_the_first_failure() {
    let first = full(ErrorKind::RemoteAccess);
    assert_eq!(first.first_failure(), None);
    let later = first.again("connection").after("write").again("read");
    assert_eq!((later.operation(), later.first_failure()), ("read", Some("write")));
    assert_eq!(later.kind(), ErrorKind::RemoteAccess);
    let text = later.to_string();
    let start = "read 192.0.2.1:7 (rxe0, GID ::ffff:192.0.2.2): ended by an earlier failure, of write: the peer's device refused the access: why";
    assert!(text.starts_with(start), "{text}");
    assert_eq!(later.after("send").first_failure(), Some("write"), "the first remains the first");
}

#[test]
fn what_is_known_of_a_failure_helps_more_than_its_kind() {
    let error = full(ErrorKind::ConnectionBroken).with_hint(Some("look here"));
    assert_eq!(error.hint(), Some("look here"));
    assert_eq!(error.again("read").hint(), Some("look here"));
    assert_eq!(full(ErrorKind::Unreachable).with_hint(None).hint(), full(ErrorKind::Unreachable).hint());
}

#[test]
fn the_document_has_every_kind_with_the_text_that_is_shown() {
    let document = include_str!("../../docs/troubleshooting.md");
    for kind in ErrorKind::ALL {
        let rows: Vec<_> =
            document.lines().filter(|line| line.starts_with(&format!("| `{kind:?}` | `{kind}` | "))).collect();
        assert_eq!(rows.len(), 1, "{kind:?}, `{kind}`");
    }
    let gid = "::ffff:192.0.2.1".parse().ok();
    let at = |error: Error| error.with_peer("192.0.2.7:7471").with_device("rxe0").with_gid(gid);
    let refused = at(Error::new(ErrorKind::ConnectionRefused, "connect")).to_string();
    assert!(document.lines().any(|line| line == refused), "{refused}");
    let later = at(Error::new(ErrorKind::RemoteAccess, "send")).after("write").with_detail("…").to_string();
    let quoted = document.lines().find(|line| line.ends_with(": …")).expect("a line that was cut");
    assert!(later.starts_with(quoted), "{later}");
}
