//! `file_server`: files come whole, fetches go on, and nothing but the folder is served.

mod fetches;
mod refusals;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::programs::{Process, Scratch, rows, run, serve, start};

const NAME: &str = "file_server";
/// Bytes of the chunks in these tests.
const CHUNK: usize = 64 << 10;

/// A folder with files, one for what is fetched, and a server.
struct Site {
    scratch: Scratch,
    server: Option<Process>,
    uri: String,
}

impl Site {
    /// Serves an empty folder at `place`.
    fn new(place: &str) -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path("served")).expect("a folder");
        let (server, uri) = serve(NAME, &["--bind", place, text(&scratch.path("served"))]);
        Self { scratch, server: Some(server), uri }
    }

    /// Kills the server.
    fn kill(&mut self) {
        // It is waited for.
        self.server = None;
    }

    /// Starts it again where it was.
    fn start_again(&mut self) {
        self.server = Some(serve(NAME, &["--bind", &self.uri, text(&self.scratch.path("served"))]).0);
    }

    /// Makes a file of that many bytes to be served; answers the bytes, which depend on the seed.
    fn make(&self, name: &str, length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect();
        std::fs::write(self.scratch.path("served").join(name), &bytes).expect("a file");
        bytes
    }

    fn words<'a>(&'a self, name: &'a str, target: &'a Path) -> Vec<&'a str> {
        let mut words = vec!["get", "--connect", &self.uri, "--format", "json", "--chunk-size", "64K"];
        words.extend([name, "--output", text(target)]);
        words
    }

    /// Begins to fetch a file.
    fn begin(&self, name: &str, target: &Path, options: &[&str]) -> Process {
        start(NAME, &[&self.words(name, target), options].concat())
    }

    /// Fetches a file.
    fn get(&self, name: &str, target: &Path, options: &[&str]) -> Output {
        run(NAME, &[&self.words(name, target), options].concat())
    }
}

/// What a fetch says that went well.
fn outcome(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let mut rows = rows(output);
    assert_eq!(rows.len(), 1, "{output:?}");
    rows.remove(0)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}
