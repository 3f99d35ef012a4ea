//! Runs a world: picks what happens next, and knows when all has ended or nothing ever will.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::here;
use super::node::{NodeId, NodeJob, Standing};
use super::queue_state::QueueId;
use super::settings::Settings;
use super::state::{Action, State};
use super::statistics::Statistics;
use super::trace::Note;
use super::world::World;
use crate::Pool;

/// Virtual nanoseconds that a run goes on after its last task, for what ends in the background.
const AFTERWARDS: u64 = 200_000_000_000;

/// A world with its tasks. While it lives, buffers on its thread come from a pool of its own.
pub struct Executor {
    world: Arc<World>,
    tasks: Vec<Slot>,
    wakes: Arc<Mutex<Vec<usize>>>,
    ready: Vec<usize>,
    pool: Pool,
    /// What buffers came from before.
    replaced: Option<Pool>,
    steps: u64,
    /// Nodes that have died, as far as who waits for their tasks has been told.
    deaths: usize,
    /// Polls one after the other with nothing in between.
    polls: u32,
}

/// A task of a node; without a future when it has ended.
struct Slot {
    node: NodeId,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
    state: Arc<WakeState>,
    /// Tells those who wait for it that it will not end, as its node is dead.
    abandon: Box<dyn FnOnce()>,
}

/// How a run ended that did not end well.
#[derive(Clone, Debug)]
pub struct Ended {
    pub seed: u64,
    pub why: String,
    pub trace: Vec<String>,
}

/// What a step is.
enum Choice {
    Event,
    Job(NodeId),
    Notice(QueueId),
    Nothing,
    Task(usize),
}

impl Executor {
    pub fn new(settings: Settings) -> Self {
        let pool = Pool::builder().build().expect("the default limit has room for a page");
        let replaced = Pool::replace_global_on_this_thread(Some(pool.clone()));
        let world = World::new(settings);
        let (tasks, ready) = Default::default();
        Self { world, tasks, wakes: Arc::default(), ready, pool, replaced, steps: 0, deaths: 0, polls: 0 }
    }

    /// What it runs.
    #[cfg(test)]
    pub(super) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Adds a node; `is_mortal` if faults may stop and kill it.
    pub fn add_node(&mut self, name: &str, is_mortal: bool) -> NodeId {
        self.world.add_node(name, is_mortal)
    }

    /// Starts a task on a node.
    pub fn spawn<T: 'static>(&mut self, node: NodeId, future: impl Future<Output = T> + 'static) -> Task<T> {
        let task = TaskState::spawn(&self.world, node, future);
        self.take_spawned();
        task
    }

    /// Runs until all tasks have ended, but for those of dead nodes, and what they left in the background too; then
    /// nothing may be left.
    ///
    /// # Errors
    /// If there is a hang, a bug of what is simulated, a panic, or something is left.
    pub fn run(&mut self) -> Result<(), Box<Ended>> {
        while self.has_tasks() {
            self.step()?;
            let idle = self.world.with(|state| state.idle_for());
            if idle > self.world.with(|state| state.settings.patience) {
                return Err(self.ended(format!("HANG: for {idle:?} nothing has ended; waiting: {}", self.waiting())));
            }
        }
        let until = self.world.clock().nanoseconds() + AFTERWARDS;
        while self.world.with(|state| state.is_busy()) && self.world.clock().nanoseconds() < until {
            self.step()?;
        }
        self.drop_tasks();
        // What waits for its owner's death was waiting for these.
        while self.world.with(|state| state.is_busy()) && self.world.clock().nanoseconds() < until {
            self.step()?;
        }
        self.check_leaks()
    }

    pub fn statistics(&self) -> Statistics {
        self.world.with(|state| state.statistics.clone())
    }

    /// Of all that has happened: the same for the same seed.
    pub fn trace_hash(&self) -> u64 {
        self.world.with(|state| state.trace.hash())
    }

    pub fn trace(&self) -> Vec<String> {
        self.world.with(|state| state.trace.lines())
    }

    /// Virtual nanoseconds since the begin.
    pub fn time(&self) -> u64 {
        self.world.clock().nanoseconds()
    }

    fn has_tasks(&mut self) -> bool {
        self.world.with(|state| self.tasks.iter().any(|task| task.future.is_some() && !state.is_dead(task.node)))
    }

    fn waiting(&self) -> String {
        let waits = |(index, task): (usize, &Slot)| {
            task.future
                .is_some()
                .then(|| format!("task {index} of {}", self.world.with(|state| state.nodes[task.node.0].name.clone())))
        };
        self.tasks.iter().enumerate().filter_map(waits).collect::<Vec<_>>().join(", ")
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), Box<Ended>> {
        self.steps += 1;
        let deaths = self.world.with(|state| {
            state.mishaps();
            state.deaths
        });
        if std::mem::replace(&mut self.deaths, deaths) != deaths {
            self.abandon_tasks();
        }
        self.ready.append(&mut lock(&self.wakes));
        let (world, ready, tasks) = (&self.world, &mut self.ready, &self.tasks);
        // Tasks that poll and poll make time pass faster, up to a millisecond at once.
        let haste = (self.polls / 16).min(11);
        let choice = world.with(|state| {
            state.statistics.steps += 1;
            let cost = 50 + state.below(450);
            state.advance(cost << haste);
            state.choose(ready, |task| tasks[task].node)
        });
        self.polls = if let Choice::Task(_) = choice { self.polls + 1 } else { 0 };
        match choice {
            Choice::Event => {}
            Choice::Job(node) => self.run_job(node)?,
            Choice::Notice(queue) => self.handle_event(queue)?,
            Choice::Nothing => {
                return Err(self.ended(format!("HANG: nothing will happen; waiting: {}", self.waiting())));
            }
            Choice::Task(task) => self.poll(task)?,
        }
        self.take_spawned();
        let bug = self.world.with(|state| state.bugs.first().cloned());
        if let Some(bug) = bug {
            return Err(self.ended(format!("BUG: {bug}")));
        }
        if self.steps > self.world.with(|state| state.settings.steps) {
            return Err(self.ended(format!("{} steps, and no end", self.steps)));
        }
        Ok(())
    }

    fn poll(&mut self, index: usize) -> Result<(), Box<Ended>> {
        let task = &mut self.tasks[index];
        task.state.is_queued.store(false, Ordering::Relaxed);
        let Some(mut future) = task.future.take() else { return Ok(()) };
        self.world.with(|state| {
            state.statistics.polls += 1;
            state.note(Note::Poll { task: index });
        });
        let (node, waker) = (task.node, task.waker.clone());
        let polled = here::run(&self.world, node, || {
            catch_unwind(AssertUnwindSafe(|| {
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                if polled.is_ready() {
                    drop(future);
                    return None;
                }
                Some(future)
            }))
        });
        match polled {
            Ok(Some(future)) => self.tasks[index].future = Some(future),
            Ok(None) => self.world.with(|state| {
                state.progress();
                state.note(Note::Ended { task: index });
            }),
            Err(panic) => return Err(self.ended(format!("task {index} panicked: {}", message(&*panic)))),
        }
        Ok(())
    }

    fn run_job(&mut self, node: NodeId) -> Result<(), Box<Ended>> {
        let Some(job) = self.world.with(|state| state.take_job(node)) else { return Ok(()) };
        let ran = here::run(&self.world, node, || {
            catch_unwind(AssertUnwindSafe(|| match job {
                NodeJob::Once(job) => {
                    job();
                    None
                }
                NodeJob::Tick(interval, mut tick) => tick().then_some((interval, tick)),
            }))
        });
        match ran {
            Ok(None) => Ok(()),
            Ok(Some((interval, tick))) => {
                self.world.with(|state| state.after(interval.as_nanos() as u64, Action::Tick(node, interval, tick)));
                Ok(())
            }
            Err(panic) => Err(self.ended(format!("a job of {node} panicked: {}", message(&*panic)))),
        }
    }

    fn handle_event(&mut self, queue: QueueId) -> Result<(), Box<Ended>> {
        let taken = self.world.with(|state| {
            state.note(Note::Event { queue: queue.0 });
            let queue = state.queue(queue)?;
            Some((queue.node, queue.on_event.take()?))
        });
        let Some((node, mut on_event)) = taken else { return Ok(()) };
        let handled = here::run(&self.world, node, || catch_unwind(AssertUnwindSafe(&mut on_event)));
        self.world.with(|state| match state.queue(queue) {
            Some(queue) => queue.on_event = Some(on_event),
            None => state.discard(on_event),
        });
        handled.map_err(|panic| self.ended(format!("handling an event of {node} panicked: {}", message(&*panic))))
    }

    fn take_spawned(&mut self) {
        for Spawned { node, future, abandon } in SPAWNED.take() {
            let index = self.tasks.len();
            let wakes = Arc::clone(&self.wakes);
            let state = Arc::new(WakeState { index, wakes, is_queued: AtomicBool::new(false) });
            let waker = Waker::from(Arc::clone(&state));
            waker.wake_by_ref();
            self.tasks.push(Slot { node, future: Some(future), waker, state, abandon });
        }
    }

    /// Tells who waits for tasks of nodes that have died.
    fn abandon_tasks(&mut self) {
        for task in &mut self.tasks {
            if task.future.is_some() && self.world.with(|state| state.is_dead(task.node)) {
                std::mem::replace(&mut task.abandon, Box::new(|| ()))();
            }
        }
    }

    fn drop_tasks(&mut self) {
        for task in &mut self.tasks {
            let future = task.future.take();
            here::run(&self.world, task.node, || drop(future));
        }
    }

    fn check_leaks(&mut self) -> Result<(), Box<Ended>> {
        self.pool.trim();
        let mut leaks = self.world.with(|state| state.leaks());
        let in_use = self.pool.statistics().in_use_bytes;
        if in_use > 0 {
            leaks.push(format!("{in_use} bytes of buffers"));
        }
        if leaks.is_empty() { Ok(()) } else { Err(self.ended(format!("LEAK: {}", leaks.join(", ")))) }
    }

    fn ended(&self, why: String) -> Box<Ended> {
        let (seed, trace) = self.world.with(|state| (state.settings.seed, state.trace.lines()));
        Box::new(Ended { seed, why, trace })
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.drop_tasks();
        // Jobs and closures hold what holds the world.
        self.world.with(State::end);
        Pool::replace_global_on_this_thread(self.replaced.take());
    }
}

impl State {
    /// Whether something is to happen but for ticks, or there is somebody who ticks.
    fn is_busy(&self) -> bool {
        self.next_due().is_some()
            || !self.notices.is_empty()
            || self.nodes.iter().any(|node| node.standing == Standing::Running && !node.jobs.is_empty())
    }

    /// What comes next, at random among all that could.
    fn choose(&mut self, ready: &mut Vec<usize>, node_of: impl Fn(usize) -> NodeId) -> Choice {
        let runs = |state: &Self, node: NodeId| state.nodes[node.0].standing == Standing::Running;
        let tasks: Vec<_> = (0..ready.len()).filter(|&place| runs(self, node_of(ready[place]))).collect();
        let jobs: Vec<_> = (0..self.nodes.len())
            .map(NodeId)
            .filter(|&node| runs(self, node) && !self.nodes[node.0].jobs.is_empty())
            .collect();
        let node_of_queue = |id: QueueId| self.queues[id.0].as_ref().map(|queue| queue.node);
        let notices: Vec<_> = (0..self.notices.len())
            .filter(|&place| node_of_queue(self.notices[place]).is_none_or(|node| runs(self, node)))
            .collect();
        let is_due = self.next_due().is_some_and(|due| due <= self.now());
        let count = tasks.len() + jobs.len() + notices.len() + usize::from(is_due);
        if count == 0 {
            if self.next_due().is_none() {
                return Choice::Nothing;
            }
            self.happen();
            return Choice::Event;
        }
        let mut chosen = self.below(count as u64) as usize;
        if chosen < tasks.len() {
            return Choice::Task(ready.swap_remove(tasks[chosen]));
        }
        chosen -= tasks.len();
        if chosen < jobs.len() {
            return Choice::Job(jobs[chosen]);
        }
        chosen -= jobs.len();
        if chosen < notices.len() {
            return Choice::Notice(self.notices.swap_remove(notices[chosen]));
        }
        self.happen();
        Choice::Event
    }

    /// Nothing happens any more.
    fn end(&mut self) {
        self.clear_events();
        for node in 0..self.nodes.len() {
            let jobs = std::mem::take(&mut self.nodes[node].jobs);
            self.discard(jobs.into_iter().collect::<Vec<_>>());
            if let Some(service) = self.nodes[node].service.take() {
                self.discard(service);
            }
        }
        for queue in 0..self.queues.len() {
            if let Some(on_event) = self.queues[queue].as_mut().and_then(|queue| queue.on_event.take()) {
                self.discard(on_event);
            }
        }
    }
}

/// Wakes a task.
struct WakeState {
    index: usize,
    wakes: Arc<Mutex<Vec<usize>>>,
    is_queued: AtomicBool,
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            lock(&self.wakes).push(self.index);
        }
    }
}

/// A task that was started and is to be taken over by the executor.
struct Spawned {
    node: NodeId,
    future: Pin<Box<dyn Future<Output = ()>>>,
    abandon: Box<dyn FnOnce()>,
}

thread_local! {
    static SPAWNED: RefCell<Vec<Spawned>> = const { RefCell::new(Vec::new()) };
}

/// A task that was started. As a future it answers what the task has, or `None` if its node has died.
pub struct Task<T>(Rc<RefCell<TaskState<T>>>);

pub(super) struct TaskState<T> {
    result: Option<T>,
    is_abandoned: bool,
    waker: Option<Waker>,
}

impl<T: 'static> TaskState<T> {
    pub(super) fn spawn(_world: &Arc<World>, node: NodeId, future: impl Future<Output = T> + 'static) -> Task<T> {
        let state = Rc::new(RefCell::new(Self { result: None, is_abandoned: false, waker: None }));
        let (ending, abandoned) = (Rc::clone(&state), Rc::clone(&state));
        let future = Box::pin(async move {
            let result = future.await;
            Self::wake(&ending, |state| state.result = Some(result));
        });
        let abandon = Box::new(move || Self::wake(&abandoned, |state| state.is_abandoned = true));
        SPAWNED.with_borrow_mut(|spawned| spawned.push(Spawned { node, future, abandon }));
        Task(state)
    }

    fn wake(state: &RefCell<Self>, change: impl FnOnce(&mut Self)) {
        let waker = {
            let mut state = state.borrow_mut();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Task<T> {
    /// What the task has answered, once.
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().result.take()
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.borrow_mut();
        match state.result.take() {
            None if !state.is_abandoned => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.why)
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
