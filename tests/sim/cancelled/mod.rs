//! Every public future dropped at every point where it waits: the connection goes on, and nothing is left of it.

mod calls;
mod ends;
mod grants;
mod list;
mod messages;
mod one_sided;
mod serving;
mod set_up;
mod streams;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use zcmi::internals::simulation::{Executor, Settings, note_progress};

/// Seeds of each point.
const SEEDS: u64 = 3;
/// From so many polls on there is something wrong with the test.
const MOST_POLLS: u32 = 200;
/// Reads that a channel may have outstanding: fewer than there are rounds, so that what keeps one of each round stands
/// still.
const READS: usize = 4;
/// The same for windows and credits.
const ROUNDS: u64 = 12;

type Boxed<T = ()> = Pin<Box<dyn Future<Output = T>>>;

/// Futures that are dropped in one way.
struct Case {
    /// Of which methods.
    names: &'static [&'static str],
    world: fn(&mut Executor, Cut) -> Rc<Cell<u64>>,
}

fn cases() -> Vec<Case> {
    let all =
        [messages::CASES, one_sided::CASES, grants::CASES, set_up::CASES, calls::CASES, serving::CASES, streams::CASES];
    all.into_iter().flatten().copied().collect()
}

impl Clone for Case {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for Case {}

/// When a future is dropped: after so many polls, at once or when it would be polled again.
#[derive(Clone, Copy, Debug)]
struct Cut {
    polls: u32,
    is_late: bool,
}

/// A future, and what holds when it was dropped or, if it says so, has ended.
struct Round {
    future: Boxed,
    after: Box<dyn FnOnce(bool) -> Boxed>,
}

impl Round {
    fn new<A: Future<Output = ()> + 'static>(
        future: impl Future<Output = ()> + 'static,
        after: impl FnOnce(bool) -> A + 'static,
    ) -> Self {
        Self { future: Box::pin(future), after: Box::new(move |has_ended| Box::pin(after(has_ended))) }
    }

    /// Goes through it; answers whether the future was dropped.
    async fn run(self, cut: Cut) -> bool {
        let has_ended = Until { future: Some(self.future), cut }.await;
        (self.after)(has_ended).await;
        note_progress();
        !has_ended
    }
}

/// Polls a future and drops it; answers whether it had ended before.
struct Until {
    future: Option<Boxed>,
    cut: Cut,
}

impl Future for Until {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let Self { future, cut } = &mut *self;
        if let (Some(running), 1..) = (future.as_mut(), cut.polls) {
            if running.as_mut().poll(context).is_ready() {
                *future = None;
                return Poll::Ready(true);
            }
            cut.polls -= 1;
            if cut.polls > 0 || cut.is_late {
                return Poll::Pending;
            }
        }
        *future = None;
        Poll::Ready(false)
    }
}

pub(crate) fn futures_dropped_at_each_point() -> Result<String, String> {
    let cases = cases();
    let names: BTreeSet<_> = cases.iter().flat_map(|case| case.names).copied().collect();
    let left_out = list::check(&names)?;
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    seen.lock().expect("no panic").push(at_each_point(case));
                }
            });
        }
    });
    let (mut points, mut drops, mut failures) = (0, 0, Vec::new());
    for seen in seen.into_inner().expect("no panic") {
        match seen {
            Ok((more, dropped)) => (points, drops) = (points + more, drops + dropped),
            Err(why) => failures.push(why),
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    Ok(format!(
        "  {} futures, dropped {drops} times at {points} points; left out: {}",
        names.len(),
        left_out.join(", ")
    ))
}

/// Answers how many points there are, and how often a future was dropped.
fn at_each_point(case: &Case) -> Result<(u32, u64), String> {
    let (mut points, mut drops) = (0, 0);
    for seed in 1..=SEEDS {
        for is_late in [false, true] {
            for polls in u32::from(is_late)..=MOST_POLLS {
                let cut = Cut { polls, is_late };
                let dropped = at(case, seed, cut)
                    .map_err(|why| format!("  {} after {cut:?}, seed {seed}: {why}", case.names.join(", ")))?;
                if dropped == 0 {
                    break;
                }
                if polls == MOST_POLLS {
                    return Err(format!("  {} is polled without end", case.names.join(", ")));
                }
                points += 1;
                drops += dropped;
            }
        }
    }
    Ok((points, drops))
}

fn at(case: &Case, seed: u64, cut: Cut) -> Result<u64, String> {
    let mut executor = Executor::new(Settings { reads: READS, ..Settings::new(seed) });
    let dropped = (case.world)(&mut executor, cut);
    executor.run().map_err(|ended| [vec![ended.why.clone()], ended.trace.clone()].concat().join("\n"))?;
    match executor.statistics().rnr {
        0 => Ok(dropped.get()),
        rnr => Err(format!("{rnr} messages found no receive")),
    }
}
