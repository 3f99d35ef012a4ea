//! What this process has of the device and of its descriptors, to show that nothing is left behind.

use std::fmt;
use std::time::{Duration, Instant};

/// Kinds that `rdma resource show` lists.
const KINDS: [&str; 7] = ["ctx", "pd", "cq", "qp", "mr", "srq", "cm_id"];
/// Time for what is destroyed in the background.
const PATIENCE: Duration = Duration::from_secs(10);
/// What has not changed for so long will not change by itself.
const CALM: Duration = Duration::from_millis(200);

/// This process' objects, as the kernel counts them (identifiers without listeners), and its descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    objects: [usize; KINDS.len()],
    descriptors: usize,
}

impl Resources {
    /// What there is now.
    pub fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("procfs").count();
        Self { objects: KINDS.map(count), descriptors }
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
            let kinds = now.objects.iter().zip(&baseline.objects);
            if kinds.into_iter().all(|(now, then)| now <= then) && now.descriptors <= baseline.descriptors {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "something was left behind: {now:?}, before {baseline:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many objects of `kind` there are.
    pub fn of(&self, kind: &str) -> usize {
        self.objects[KINDS.iter().position(|&known| known == kind).expect("a kind that is counted")]
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in KINDS.iter().zip(self.objects) {
            write!(f, "{count} {kind}, ")?;
        }
        write!(f, "{} descriptors", self.descriptors)
    }
}

fn count(kind: &str) -> usize {
    let output = std::process::Command::new("rdma").args(["resource", "show", kind]).output().expect("iproute2");
    let pid = format!("pid {} ", std::process::id());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| format!("{line} ").contains(&pid) && !line.contains("LISTEN")).count()
}
