//! Hosts that lack something: no device, no library, no permission, no memory to lock. The program starts and says
//! what is missing. Faults are made in a mount namespace or a process of their own, so the host is left alone.

mod common;

use std::process::Command;

use common::{device_address, role};
use zcmi::{Buffer, Config, Connector, Error, ErrorKind, Listener, Worker};

/// Tries what the environment makes fail, and prints the error.
#[test]
fn attempt() {
    let Some(part) = role() else { return };
    common::play(async {
        let worker = Worker::new(Config::default()).expect("valid settings");
        let address = std::env::var("ZCMI_HOST1").unwrap_or_else(|_| "192.0.2.1".to_owned());
        let error: Error = match part.as_str() {
            "connect" => Connector::new(&worker)
                .connect(&format!("rdma://{address}:9"))
                .await
                .map(drop)
                .expect_err("connecting must fail here"),
            "listen" => Listener::bind(&worker, &format!("rdma://{address}:0"))
                .await
                .map(drop)
                .expect_err("listening must fail here"),
            "register" => {
                // The receives of a connection need more than the limit.
                let listener = Listener::bind(&worker, &format!("rdma://{address}:0")).await.expect("listens");
                let uri = listener.uri();
                let connector = Connector::new(&worker);
                tokio::select! {
                    connected = connector.connect(&uri) => connected.map(drop).expect_err("connecting must fail here"),
                    _ = listener.accept() => panic!("accepting must fail here"),
                }
            }
            other => panic!("no part {other}"),
        };
        common::say(format!("{:?}|{}|{error}", error.kind(), error.hint().is_some()));
    });
}

/// Says what the configuration is.
#[test]
fn configuration() {
    if role().as_deref() == Some("configuration") {
        let said = Config::from_env().map(|config| (config.receive_depth, config.polling));
        common::say(said.map_or_else(|error| error.to_string(), |config| format!("{config:?}")));
    }
}

#[test]
fn settings_come_from_the_environment() {
    let said = |variables: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--exact", "configuration", "--nocapture", "--test-threads=1"]);
        command.env("ZCMI_TEST_PEER", "configuration").envs(variables.iter().copied());
        let peer = common::Peer::spawn(command);
        let said = peer.hear();
        assert!(peer.finish().success());
        said
    };
    assert_eq!(said(&[("ZCMI_RECEIVE_DEPTH", "7"), ("ZCMI_POLLING", "event")]), "(7, Event)");
    let refused = said(&[("ZCMI_RECEIVE_DEPTH", "none")]);
    assert!(refused.contains("ZCMI_RECEIVE_DEPTH is \"none\", must be 1 to 8192"), "{refused}");
}

/// Runs this binary's `attempt` through `wrapper`, a shell fragment that ends in `exec "$@"`.
fn attempt_within(wrapper: &str, part: &str) -> (String, String) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &format!("mount --make-rprivate /; {wrapper}"), "sh"]);
    command.arg(std::env::current_exe().expect("our own path"));
    command.args(["--exact", "attempt", "--nocapture", "--test-threads=1"]).env("ZCMI_TEST_PEER", part);
    let peer = common::Peer::spawn(command);
    let said = peer.hear();
    assert!(peer.finish().success());
    let (kind, rest) = said.split_once('|').expect("a kind");
    let (has_hint, text) = rest.split_once('|').expect("a text");
    assert_eq!(has_hint, "true", "{text}");
    assert!(text.starts_with("connect ") || text.starts_with("listen:"), "{text}");
    (kind.to_owned(), text.to_owned())
}

fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("SKIPPED: making the fault needs root");
    }
    root
}

#[test]
fn without_a_device_the_error_says_so() {
    let has_device = zcmi::verbs::Device::list().is_ok_and(|devices| !devices.is_empty());
    if has_device {
        eprintln!("SKIPPED: this host has a device");
        return;
    }
    common::play(async {
        let worker = Worker::new(Config::default()).expect("valid settings");
        let error = Connector::new(&worker).connect("rdma://192.0.2.1:7471").await.expect_err("no device");
        assert!(matches!(error.kind(), ErrorKind::NoDevice | ErrorKind::NotInstalled), "{error}");
        assert_eq!((error.operation(), error.peer()), ("connect", Some("192.0.2.1:7471")), "{error}");
        assert!(error.hint().is_some(), "{error}");
        let error = Listener::bind(&worker, "rdma://192.0.2.1:0").await.expect_err("no device");
        assert!(matches!(error.kind(), ErrorKind::NoDevice | ErrorKind::NotInstalled), "{error}");
    });
    // Memory needs no device.
    assert_eq!(Buffer::allocate(100).expect("memory").len(), 100);
}

#[test]
fn without_the_libraries_the_program_starts_and_names_them() {
    if !is_root() {
        return;
    }
    let hide = "for l in $(ldconfig -p | grep -oE '/[^ ]*/lib(ibverbs|rdmacm)\\.so\\.1$'); do mount --bind /dev/null $l; done; exec \"$@\"";
    for part in ["connect", "listen"] {
        let (kind, text) = attempt_within(hide, part);
        assert_eq!(kind, "NotInstalled", "{text}");
        assert!(text.contains("apt-get install"), "{text}");
    }
}

#[test]
fn without_permission_the_error_names_the_device_files() {
    if !is_root() || device_address().is_none() {
        return;
    }
    // The same devices under other modes, seen by this one process.
    let forbid = "cd /dev/infiniband; ls | while read -r f; do echo $f $(stat -c '0x%t 0x%T' $f); done > /tmp/zcmi-nodes.$$; \
                  mount -t tmpfs tmpfs /dev/infiniband; cd /dev/infiniband; \
                  while read -r f major minor; do mknod -m 600 $f c $((major)) $((minor)); done < /tmp/zcmi-nodes.$$; \
                  rm /tmp/zcmi-nodes.$$; cd /; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    for part in ["connect", "listen"] {
        let (kind, text) = attempt_within(forbid, part);
        assert_eq!(kind, "PermissionDenied", "{text}");
        assert!(text.contains("/dev/infiniband"), "{text}");
    }
}

#[test]
fn a_memlock_limit_that_is_too_low_is_named_with_its_value() {
    if !is_root() || device_address().is_none() {
        return;
    }
    // A page: what a connection begins with fits 64 KiB.
    let limit = "exec prlimit --memlock=4096:4096 setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let (kind, text) = attempt_within(limit, "register");
    assert_eq!(kind, "MemoryLimit", "{text}");
    assert!(text.contains("4096") && text.contains("ulimit -l"), "{text}");
}

#[test]
fn an_ordinary_user_can_use_the_device() {
    if !is_root() || device_address().is_none() {
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(std::env::current_exe().expect("our own path"));
    command.args(["--exact", "ordinary", "--nocapture"]).env("ZCMI_TEST_PEER", "ordinary");
    let peer = common::Peer::spawn(command);
    assert_eq!(peer.hear(), "works");
    assert!(peer.finish().success());
}

/// The part of the test above that runs as another user.
#[test]
fn ordinary() {
    if role().as_deref() != Some("ordinary") {
        return;
    }
    common::play(async {
        common::still_works(&device_address().expect("the test has found it")).await;
        common::say("works");
    });
}
