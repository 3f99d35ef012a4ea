//! What is refused, and how that is said.

use std::fs::{create_dir, write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use super::{CHUNK, NAME, Site, outcome, text};
use crate::programs::{LIMIT, Process, device, host, one_line, path_of, places, rows, run, soon, zcmi_sees_a_device};

#[test]
fn nothing_outside_of_the_folder_is_served() {
    let _device = device();
    // A path is refused before there is anything to transport, and an emulated host starts processes slowly.
    if zcmi_sees_a_device() {
        eprintln!("skipped: it needs no device");
        return;
    }
    for place in places() {
        let site = Site::new(&place);
        let served = site.scratch.path("served");
        write(site.scratch.path("secret"), "secret").expect("a file");
        create_dir(served.join("folder")).expect("a folder");
        symlink(site.scratch.path("secret"), served.join("link")).expect("a link");
        symlink("../..", served.join("folder/up")).expect("a link");
        symlink("loop", served.join("loop")).expect("a link");
        symlink("folder/../file", served.join("within")).expect("a link");
        let _socket = UnixListener::bind(served.join("socket")).expect("a socket");
        let pipe = Command::new("mkfifo").arg(served.join("pipe")).status().expect("mkfifo");
        assert!(pipe.success());
        site.make("file", 10, 1);

        let secret = site.scratch.path("secret");
        let (long, longer) = ("x".repeat(300), "x/".repeat(3000));
        let outside = "it leads out of the folder";
        for (path, reason) in [
            ("../secret", outside),
            ("folder/../../secret", outside),
            (text(&secret), outside),
            ("/etc/passwd", outside),
            ("link", outside),
            ("folder/up/secret", outside),
            ("loop", "symbolic links"),
            ("folder", "but a folder"),
            ("pipe", "but a pipe"),
            ("socket", "but a socket"),
            ("nothing", "No such file"),
            (&long, "name too long"),
            (&longer, "a path of 6000 bytes"),
            ("", "a path of 0 bytes"),
        ] {
            let target = site.scratch.path("got");
            let output = site.get(path, &target, &[]);
            assert_eq!(output.status.code(), Some(1), "{path}: {output:?}");
            let line = one_line(&output);
            assert!(line.starts_with("file_server: ") && line.contains(reason), "{path}: {line}");
            assert!(!target.exists(), "{path}");
        }
        // A link that stays inside is followed.
        outcome(&site.get("within", &site.scratch.path("within"), &[]));

        let list = |path: &str| run(NAME, &["list", "--connect", &site.uri, "--format", "json", path]);
        let names: Vec<_> =
            rows(&list(".")).iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
        assert_eq!(names, ["file", "folder"]);
        assert!(one_line(&list("..")).contains(outside) && one_line(&list("folder/up")).contains(outside));
    }
}

#[test]
fn a_long_folder_is_listed_whole() {
    let _device = device();
    let site = Site::new(&places()[0]);
    let mut names: Vec<_> = (0..450).map(|number| format!("file {number}")).collect();
    names.iter().for_each(|name| write(site.scratch.path("served").join(name), name).expect("a file"));
    names.sort();
    let output = run(NAME, &["list", "--connect", &site.uri, "--format", "json"]);
    let found: Vec<_> = rows(&output).iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(found, names);
}

#[test]
fn what_is_there_is_kept_and_a_full_disk_is_named() {
    let _device = device();
    let site = Site::new(&places()[0]);
    let bytes = site.make("file", 6 * CHUNK, 1);
    let target = site.scratch.path("got");
    write(&target, "mine").expect("a file");
    let refused = site.get("file", &target, &[]);
    assert!(refused.status.code() == Some(1) && one_line(&refused).contains("it is there already"), "{refused:?}");
    assert_eq!(std::fs::read(&target).expect("the file"), b"mine");
    outcome(&site.get("file", &target, &["--overwrite"]));
    assert!(std::fs::read(&target).expect("the file") == bytes);

    // A limit on the length of files stands for a disk that is full: writing fails in the middle. One chunk after the other, so that
    // it is the fourth.
    let target = site.scratch.path("full");
    let limited = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, text(&path_of(NAME))]).args(site.words("file", &target)).args(["--in-flight", "1"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
    let output = Process(child).output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(one_line(&output).contains("full.part: File too large"), "{output:?}");
    // With room it goes on.
    let done = outcome(&site.get("file", &target, &[]));
    assert_eq!((&done["resumed"], &done["damaged"]), (&3.into(), &0.into()), "{done}");
    assert!(std::fs::read(&target).expect("the file") == bytes);
}

#[test]
fn one_target_is_fetched_by_one_process() {
    let _device = device();
    let site = Site::new(&places()[0]);
    site.make("file", 40 * CHUNK, 1);
    let target = site.scratch.path("got");
    let first = site.begin("file", &target, &["--limit-rate", "1M"]);
    soon(|| site.scratch.path("got.part.journal").exists().then_some(())).expect("a journal");
    let second = site.get("file", &target, &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(one_line(&second).contains("another process is fetching it"), "{second:?}");
    outcome(&first.output());
}

#[test]
fn a_server_that_does_not_come_back_is_not_waited_for_for_ever() {
    let _device = device();
    let mut site = Site::new(&places()[0]);
    site.make("file", 40 * CHUNK, 1);
    let target = site.scratch.path("got");
    let fetch = site.begin("file", &target, &["--limit-rate", "1M", "--patience", "1"]);
    soon(|| site.scratch.path("got.part.journal").exists().then_some(())).expect("a journal");
    let begun = std::time::Instant::now();
    site.kill();
    let output = fetch.output();
    assert!(output.status.code() == Some(1) && begun.elapsed() < LIMIT / 2, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("connecting again") && said.lines().last().is_some_and(|line| line.contains(". Hint: ")),
        "{said}"
    );
    assert!(!target.exists());

    let nobody = run(NAME, &["get", "--connect", &format!("{}:1", host()), "--patience", "0", "file"]);
    assert!(nobody.status.code() == Some(1) && one_line(&nobody).contains(". Hint: "), "{nobody:?}");
}

#[test]
fn a_server_of_something_else_is_named() {
    let _device = device();
    for place in places() {
        let site = Site::new(&place);
        let output = run("key_value", &["get", "--connect", &site.uri, "key"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(one_line(&output).contains("file_server") || one_line(&output).contains("same types"), "{output:?}");
        let served = text(&site.scratch.path("served")).to_owned();
        let nothing = run(NAME, &["serve", "--bind", "tcp://127.0.0.1:0", &format!("{served}/nothing")]);
        assert!(nothing.status.code() == Some(1) && one_line(&nothing).contains("No such file"), "{nothing:?}");
    }
}
