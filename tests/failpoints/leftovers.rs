//! What a death could leave behind that is no object of a device and no descriptor.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for what ends in the background.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of this process: mapped rings, threads, and bytes of buffers in use. Of this host: files where processes leave such.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    rings: usize,
    threads: usize,
    memory: usize,
    files: BTreeSet<String>,
}

impl Leftovers {
    pub(crate) fn now() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let rings = maps.lines().filter(|line| line.contains("zcmi-ring")).count();
        let files = [Path::new("/dev/shm"), &std::env::temp_dir()].into_iter().flat_map(files).collect();
        Self { rings, threads: threads(), memory: zcmi::Pool::global().statistics().in_use_bytes, files }
    }

    /// The same, with so many more bytes in use.
    pub(crate) fn with_more_memory(self, bytes: usize) -> Self {
        Self { memory: self.memory + bytes, ..self }
    }

    /// Waits until there is no more of anything than at `before`.
    ///
    /// # Panics
    /// If that takes too long.
    pub(crate) fn assert_back_at(before: &Self) {
        let begun = Instant::now();
        loop {
            let now = Self::now();
            let is_no_more = now.rings <= before.rings && now.threads <= before.threads;
            if is_no_more && now.memory <= before.memory && now.files.is_subset(&before.files) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "something was left behind: {now:?}, before {before:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Those of the runtime's come and go.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| !name.starts_with("tokio")).count()
}

/// Files in a folder that are ours by their name, or sockets or pipes.
fn files(folder: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let is_special = entry.file_type().is_ok_and(|kind| kind.is_socket() || kind.is_fifo());
        is_special || entry.file_name().to_string_lossy().contains("zcmi")
    });
    ours.map(|entry| entry.path().display().to_string()).collect()
}
