//! Fetches that end well, whatever happens on the way.

use std::fs::{OpenOptions, read, write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{CHUNK, Site, outcome};
use crate::programs::{assert_keys, device, places, soon};

/// Chunks of the file of most tests, the last of which is short.
const CHUNKS: usize = 48;
const LENGTH: usize = (CHUNKS - 1) * CHUNK + 1234;
/// A rate at which the file takes more than a second.
const SLOWLY: [&str; 2] = ["--limit-rate", "2500K"];

#[test]
fn files_come_as_they_are_of_any_length() {
    let _device = device();
    for place in places() {
        let site = Site::new(&place);
        for length in [0, 1, 2 * CHUNK, 2 * CHUNK + 1] {
            let bytes = site.make("file", length, length as u64);
            let target = site.scratch.path(&format!("got-{length}"));
            let done = outcome(&site.get("file", &target, &[]));
            assert_keys(&done, &KEYS);
            assert!(read(&target).expect("the file") == bytes, "{length} bytes");
            let chunks = length.div_ceil(CHUNK);
            assert_eq!((&done["length"], &done["fetched"]), (&length.into(), &chunks.into()));
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(done["sha256"], digest.as_str());
            assert_nothing_left(&target);
        }
    }
}

#[test]
fn a_fetch_goes_on_when_the_server_was_killed_and_started_again() {
    let _device = device();
    for place in places() {
        let mut site = Site::new(&place);
        let bytes = site.make("file", LENGTH, 1);
        let target = site.scratch.path("got");
        let fetch = site.begin("file", &target, &SLOWLY);
        wait_for_chunks(&target, CHUNKS / 4);
        site.kill();
        let before = chunks_of(&target).len();
        assert!(before < CHUNKS, "it was done before the server was killed");
        site.start_again();
        let output = fetch.output();
        let done = outcome(&output);
        // One connection was lost, and no chunk was fetched twice.
        assert_eq!((&done["fetched"], &done["resumed"]), (&CHUNKS.into(), &0.into()), "{done}");
        assert_eq!(done["lost_connections"], 1, "{output:?}");
        assert!(read(&target).expect("the file") == bytes);
        assert_nothing_left(&target);
    }
}

#[test]
fn a_fetch_that_was_killed_goes_on_with_what_is_whole() {
    let _device = device();
    for place in places() {
        let site = Site::new(&place);
        let bytes = site.make("file", LENGTH, 2);
        let target = site.scratch.path("got");
        kill_in_the_middle(&site, &target);
        let had = chunks_of(&target);
        // A byte of the first and of the last chunk is changed, and the journal's last line is cut.
        for chunk in [had[0], had[had.len() - 1]] {
            let part = OpenOptions::new().write(true).open(part(&target)).expect("the part");
            let at = chunk * CHUNK + 17;
            part.write_all_at(&[!bytes[at]], at as u64).expect("a byte");
        }
        let mut lines = read(journal(&target)).expect("the journal");
        lines.extend_from_slice(b"47 12");
        write(journal(&target), lines).expect("the journal");

        let done = outcome(&site.get("file", &target, &[]));
        let whole = had.len() - 2;
        let expected = [("damaged", 2), ("resumed", whole), ("fetched", CHUNKS - whole), ("begun_anew", 0)];
        for (name, count) in expected {
            assert_eq!(done[name], Value::from(count), "{name}: {done}");
        }
        assert!(read(&target).expect("the file") == bytes);
        assert_nothing_left(&target);
    }
}

#[test]
fn a_file_that_has_changed_is_begun_anew() {
    let _device = device();
    for place in places() {
        let site = Site::new(&place);
        // Between two fetches.
        site.make("file", LENGTH, 3);
        let target = site.scratch.path("got");
        kill_in_the_middle(&site, &target);
        let bytes = site.make("file", LENGTH, 4);
        let output = site.get("file", &target, &[]);
        let done = outcome(&output);
        assert_eq!((&done["resumed"], &done["fetched"], &done["begun_anew"]), (&0.into(), &CHUNKS.into(), &1.into()));
        assert!(String::from_utf8_lossy(&output.stderr).contains("beginning anew"), "{output:?}");
        assert!(read(&target).expect("the file") == bytes);

        // While it is fetched: it is made shorter, which ends no process.
        let target = site.scratch.path("another");
        let fetch = site.begin("file", &target, &SLOWLY);
        wait_for_chunks(&target, CHUNKS / 4);
        let shorter = OpenOptions::new().write(true).open(site.scratch.path("served").join("file"));
        shorter.expect("the file").set_len(3 * CHUNK as u64 / 2).expect("it can be cut");
        let output = fetch.output();
        assert_eq!(outcome(&output)["begun_anew"], 1, "{output:?}");
        assert!(read(&target).expect("the file") == bytes[..3 * CHUNK / 2]);
        assert_nothing_left(&target);
    }
}

#[test]
fn bytes_that_were_changed_without_a_sign_are_noticed_in_the_end() {
    let _device = device();
    let site = Site::new(&places()[0]);
    site.make("file", LENGTH, 5);
    let target = site.scratch.path("got");
    let path = site.scratch.path("served").join("file");
    let status = std::fs::metadata(&path).expect("the file");
    kill_in_the_middle(&site, &target);
    // Same length, same inode, same time: only the digest tells.
    let bytes = site.make("file", LENGTH, 6);
    let file = OpenOptions::new().write(true).open(&path).expect("the file");
    file.set_modified(status.modified().expect("a time")).expect("it can be set");
    let output = site.get("file", &target, &[]);
    let done = outcome(&output);
    assert!(done["resumed"].as_u64() > Some(0) && done["begun_anew"] == 1, "{output:?}");
    assert!(read(&target).expect("the file") == bytes);
}

#[test]
fn two_clients_fetch_at_once() {
    let _device = device();
    for place in places() {
        let site = Site::new(&place);
        let files = [("one", 7), ("two", 8)].map(|(name, seed)| (name, site.make(name, LENGTH, seed)));
        let fetches =
            files.each_ref().map(|(name, _)| site.begin(name, &site.scratch.path(name), &["--in-flight", "8"]));
        for (fetch, (name, bytes)) in fetches.into_iter().zip(files) {
            assert_eq!(outcome(&fetch.output())["fetched"], CHUNKS);
            assert!(read(site.scratch.path(name)).expect("the file") == bytes, "{name}");
        }
    }
}

const KEYS: [&str; 12] = [
    "begun_anew",
    "chunks",
    "damaged",
    "fetched",
    "length",
    "lost_connections",
    "output",
    "path",
    "resumed",
    "seconds",
    "sha256",
    "transport",
];

/// Fetches some chunks of `file`, then the client is killed.
fn kill_in_the_middle(site: &Site, target: &Path) {
    let mut fetch = site.begin("file", target, &SLOWLY);
    wait_for_chunks(target, CHUNKS / 4);
    fetch.0.kill().expect("it was running");
    fetch.0.wait().expect("it was killed");
    let has = chunks_of(target).len();
    assert!((3..CHUNKS).contains(&has) && !target.exists(), "{has} chunks");
}

fn wait_for_chunks(target: &Path, count: usize) {
    soon(|| (chunks_of(target).len() >= count).then_some(())).expect("chunks");
}

/// The chunks that the journal names.
fn chunks_of(target: &Path) -> Vec<usize> {
    let journal = std::fs::read_to_string(journal(target)).unwrap_or_default();
    let lines = journal.split_inclusive('\n').filter(|line| line.ends_with('\n')).skip(1);
    lines.map(|line| line.split(' ').next().and_then(|chunk| chunk.parse().ok()).expect("a chunk")).collect()
}

fn part(target: &Path) -> PathBuf {
    PathBuf::from(format!("{}.part", target.display()))
}

fn journal(target: &Path) -> PathBuf {
    PathBuf::from(format!("{}.part.journal", target.display()))
}

fn assert_nothing_left(target: &Path) {
    assert!(!part(target).exists() && !journal(target).exists());
}
