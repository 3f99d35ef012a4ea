//! What a command in the VM sees and gives back. These tests boot real machines.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{alone, children, finish, folder, gone, names, run, scripts, signal, until_up, wait};

/// Where the kernels are, as `run` finds it.
fn cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ZCMI_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("zcmi")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache/zcmi")))
        .expect("a cache folder")
}

const EVERYDAY: &str = r#"
check() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "ok $name"; else echo "bad $name"; fi; }
printf '<%s>' "$@"; echo
check here test "$(pwd)" = "$HERE"
check variable test "$VARIABLE" = "with space
and line"
check require test "$ZCMI_REQUIRE_RDMA" = 1
check address test "$ZCMI_HOST1" = 192.0.2.1
check root test "$(id -u)" = 0
check device test -e /sys/class/infiniband/rxe0
check files test -c /dev/infiniband/uverbs0 -a -c /dev/infiniband/rdma_cm
check ordinary_user setpriv --reuid 65534 --regid 65534 --clear-groups ibv_devinfo -d rxe0
check host_file grep -q before "$HERE/host-file"
echo changed > "$HERE/host-file"
check overlay grep -q changed "$HERE/host-file"
check write_tmp sh -c 'echo x > /tmp/zcmi-test-leak'
check shm sh -c 'echo x > /dev/shm/x'
check lo sh -c 'ip addr show lo | grep -q 127.0.0.1'
check ipv6 sh -c 'ip -6 addr show dev zcmi0 | grep -q fd00:'
check mtu sh -c 'ibv_devinfo | grep -q "active_mtu:.*4096"'
check modprobe modprobe sch_netem
echo result > "$HERE/results/file"
"$SCRIPTS/up" | grep -q 'already' && echo ok up_again
check down "$SCRIPTS/down"
check down_is_down test ! -e /sys/class/infiniband/rxe0 -a ! -e /sys/class/net/zcmi0
"$SCRIPTS/down" | grep -q 'nothing to do' && echo ok down_again
setpriv --reuid 65534 --regid 65534 --clear-groups "$SCRIPTS/up" 2>&1 | grep -q 'sudo' && echo ok up_needs_root
"$SCRIPTS/up" --netdev nothere 2>&1 | grep -q "no network device 'nothere'" && echo ok up_unknown_netdev
"$SCRIPTS/up" --netdev lo 2>&1 | grep -q "on lo" && echo ok up_on_lo
ip link add zcmi0 type dummy; rdma link add other type rxe netdev zcmi0
"$SCRIPTS/up" >/dev/null 2>&1; check up_fails test $? = 1
check no_half_device test ! -e /sys/class/infiniband/rxe0
rdma link delete other; ip link delete zcmi0
check up "$SCRIPTS/up"
check up_is_up test -e /sys/class/infiniband/rxe0
"$SCRIPTS/run" -- sh -c 'echo "direct $ZCMI_HOST1"; exit 3' | grep -q 'direct 192.0.2.1' && echo ok direct
"$SCRIPTS/run" --deadline 0.3 -- sleep 100 2>/dev/null; check direct_deadline test $? = 124
"$SCRIPTS/down" >/dev/null; check direct_makes_a_device "$SCRIPTS/run" -- ibv_devinfo -d rxe0
check direct_removes_it test ! -e /sys/class/infiniband/rxe0
echo to-stderr >&2
exit 42
"#;

#[test]
fn an_everyday_command_sees_the_host_and_the_device() {
    let _alone = alone();
    let here = folder("everyday dir");
    fs::write(here.join("host-file"), "before").expect("a file");
    // A cache that knows nothing of KVM yet: where it fails, nothing may be heard of it.
    let fresh = folder("fresh-cache");
    symlink(cache().join("6.12"), fresh.join("6.12")).expect("a link to the kernel");
    let results = here.join("results");
    let mut command = run(["--results", &results.to_string_lossy(), "--", "sh", "-c", EVERYDAY, "sh"]);
    command.args(["a b", "", "c\nd", "*", "--vm"]).current_dir(&here);
    command.env("VARIABLE", "with space\nand line").env("HERE", &here).env("SCRIPTS", scripts());
    command.env("ZCMI_CACHE", &fresh);
    let outcome = finish(command, None);
    let text = outcome.text();
    assert_eq!(outcome.stderr, "to-stderr\n", "stdout was: {text}");
    assert_eq!(text.lines().next(), Some("<a b><><c"));
    assert_eq!(text.lines().nth(1), Some("d><*><--vm>"));
    let checks: Vec<&str> = text.lines().skip(2).collect();
    assert!(checks.iter().all(|line| line.starts_with("ok ")), "{text}");
    assert_eq!(checks.len(), 31, "{text}");
    assert_eq!(outcome.status, Some(42));
    assert_eq!(fs::read_to_string(here.join("host-file")).ok().as_deref(), Some("before"));
    assert_eq!(fs::read_to_string(results.join("file")).ok().as_deref(), Some("result\n"));
    assert!(!PathBuf::from("/tmp/zcmi-test-leak").exists());
}

#[test]
fn streams_are_exact_apart_and_end() {
    let _alone = alone();
    let mut state = 1u32;
    let input: Vec<u8> = (0..5_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    // cat ends at the end of its input; the rest goes to standard error; then death by a signal.
    let script = "tee /dev/fd/3 3>&2 | cat; kill -SEGV $$";
    let command = run(["--", "bash", "-c", script]);
    let child = finish_raw(command, &input);
    assert!(child.1 == input, "standard output differs: {} bytes", child.1.len());
    assert!(child.2 == input, "standard error differs: {} bytes", child.2.len());
    assert_eq!(child.0, Some(128 + 11));
}

fn finish_raw(mut command: Command, input: &[u8]) -> (Option<i32>, Vec<u8>, Vec<u8>) {
    let errors = folder("streams").join("errors");
    command.stderr(fs::File::create(&errors).expect("a file"));
    let outcome = finish(command, Some(input.to_vec()));
    (outcome.status, outcome.stdout, fs::read(errors).expect("the file"))
}

#[test]
fn a_reader_that_goes_away_breaks_the_pipe() {
    let _alone = alone();
    let mut command = run(["--", "bash", "-c", "echo up; yes; echo $? >&2"]);
    command.env("TMPDIR", folder("pipe"));
    let mut child = until_up(command);
    drop(child.stdout.take());
    let outcome = wait(child);
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "141\n");
}

#[test]
fn a_background_process_does_not_keep_the_run() {
    let _alone = alone();
    let outcome = finish(run(["--", "sh", "-c", "sleep 1000 & yes >&2 & echo done; exit 3"]), None);
    assert_eq!((outcome.status, outcome.text().as_str()), (Some(3), "done\n"));
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing() {
    let _alone = alone();
    let temporary = folder("interrupt");
    let before = names(&cache());
    let mut command = run(["--", "sh", "-c", "trap 'echo bye; exit 5' INT; echo up; while :; do sleep 0.1; done"]);
    command.env("TMPDIR", &temporary);
    let child = until_up(command);
    let machines = children(child.id());
    assert_eq!(machines.len(), 1);
    signal(child.id(), "INT");
    let outcome = wait(child);
    assert_eq!((outcome.status, outcome.text().as_str()), (Some(5), "bye\n"), "{}", outcome.stderr);
    assert!(gone(&machines), "QEMU has outlived the run");
    assert_eq!(names(&temporary), Vec::<String>::new());
    assert_eq!(names(&cache()), before);
}

#[test]
fn a_killed_run_leaves_nothing() {
    let _alone = alone();
    let temporary = folder("kill");
    let before = names(&cache());
    let mut command = run(["--", "sh", "-c", "echo up; exec sleep 1000"]);
    command.env("TMPDIR", &temporary);
    let child = until_up(command);
    let machines = children(child.id());
    assert_eq!(machines.len(), 1);
    signal(child.id(), "KILL");
    assert_eq!(wait(child).status, None);
    assert!(gone(&machines), "QEMU has outlived the run");
    assert_eq!(names(&temporary), Vec::<String>::new());
    assert_eq!(names(&cache()), before);
}

#[test]
fn a_deadline_stops_a_stubborn_command() {
    let _alone = alone();
    let script = "trap '' TERM INT; echo up; while :; do sleep 0.1; done";
    let outcome = finish(run(["--deadline", "1", "--", "sh", "-c", script]), None);
    assert_eq!((outcome.status, outcome.text().as_str()), (Some(124), "up\n"));
    assert!(outcome.stderr.contains("deadline of 1 s"), "{}", outcome.stderr);
}

#[test]
fn a_terminal_is_a_terminal() {
    let _alone = alone();
    let script = "test -t 0 && test -t 1 && test -t 2 && echo all; stty size; read line; \
                  echo \"got <$line>\"; read line; exit 9";
    let quoted = script.replace('\'', "'\\''");
    // The outer terminal is script(1)'s; its size is set first, its state looked at afterwards.
    let inner = format!(
        "stty rows 40 cols 100; before=$(stty -g); {} --vm -- sh -c '{quoted}'; status=$?; \
         test \"$before\" = \"$(stty -g)\" && echo restored; exit $status",
        scripts().join("run").display()
    );
    let log = folder("terminal").join("log");
    // Somebody who types a line early, and Ctrl-C once the answer is there.
    let typist =
        "n=0; until grep -q 'got <hello>' \"$1\" 2>/dev/null || [ $n -gt 600 ]; do n=$((n+1)); sleep 0.1; done";
    let typist = format!("(echo hello; {typist}; printf '\\003'; sleep 1) | script -qefc \"$0\" \"$1\"");
    let mut command = Command::new("sh");
    command.args(["-c", &typist, &inner]).arg(&log);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let outcome = finish(command, None);
    let text = outcome.text();
    assert!(text.contains("all") && text.contains("40 100") && text.contains("got <hello>"), "{text}");
    assert!(text.contains("restored"), "{text}");
    assert_eq!(outcome.status, Some(130), "Ctrl-C in the guest's terminal: {text}");
}
