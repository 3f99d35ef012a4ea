//! What there is of the device's objects and of this process' descriptors, to show that nothing is left behind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Time for what is destroyed in the background.
const PATIENCE: Duration = Duration::from_secs(10);
/// What has not changed for so long will not change by itself.
const CALM: Duration = Duration::from_millis(200);

/// The objects of all devices, as the kernel counts them, if the tests run on one, and this process' descriptors. Tests run one at a time, so
/// nobody else has any that come and go.
#[derive(Clone, PartialEq, Eq)]
pub struct Resources {
    objects: BTreeMap<String, usize>,
    descriptors: usize,
}

impl Resources {
    /// What there is now, without what the pool keeps for the next buffer.
    pub fn now() -> Self {
        zcmi::Pool::global().trim();
        super::trim_shared_pool();
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("procfs").count();
        Self { objects: objects(), descriptors }
    }

    /// What there is once it has stopped changing: other tests of this process end in the background.
    pub fn settled() -> Self {
        let begun = Instant::now();
        let (mut last, mut since) = (Self::now(), begun);
        while since.elapsed() < CALM {
            assert!(begun.elapsed() < PATIENCE, "the process' resources do not come to rest: {last:?}");
            std::thread::sleep(Duration::from_millis(20));
            let now = Self::now();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// Waits until there is no more of anything than at `baseline`.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn assert_back_at(baseline: &Self) {
        let begun = Instant::now();
        loop {
            let now = Self::now();
            let is_no_more = now.objects.iter().all(|(kind, &count)| count <= baseline.of(kind));
            if is_no_more && now.descriptors <= baseline.descriptors {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "something was left behind: {now:?}, before {baseline:?}; descriptors {:?}",
                descriptors()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, with so many more objects of `kind`.
    pub fn with_more(mut self, kind: &str, count: usize) -> Self {
        *self.objects.entry(kind.to_owned()).or_default() += count;
        self
    }

    /// How many objects of `kind` there are.
    pub fn of(&self, kind: &str) -> usize {
        self.objects.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.objects {
            write!(f, "{count} {kind}, ")?;
        }
        write!(f, "{} descriptors", self.descriptors)
    }
}

/// What the descriptors are of.
fn descriptors() -> Vec<String> {
    let files = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).map(|path| path.display().to_string()).collect()
}

/// What `rdma resource` says: a line a device, such as `0: rxe0: pd 1 cq 1 qp 1 cm_id 0 mr 0 ctx 0 srq 0`.
fn objects() -> BTreeMap<String, usize> {
    if !super::Transport::of_test().has_device() {
        return BTreeMap::new();
    }
    let output = std::process::Command::new("rdma").arg("resource").output().expect("iproute2");
    assert!(output.status.success(), "rdma resource: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut objects = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().skip(2).collect();
        for pair in words.chunks_exact(2) {
            *objects.entry(pair[0].to_owned()).or_default() += pair[1].parse::<usize>().expect("a count");
        }
    }
    assert!(objects.contains_key("qp"), "rdma resource said: {text}");
    objects
}
