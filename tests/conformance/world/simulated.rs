//! Two nodes of a simulated network.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{Executor, Fault, Settings, kill, stop};

use super::{End, Initiator, Other, Responder, Role};
use crate::Body;

/// Histories of each body.
const SEEDS: u64 = 20;

pub(super) fn run(body: &'static Body) {
    for seed in 1..=SEEDS {
        let mut executor = Executor::new(Settings::new(seed));
        let lines = Rc::<[RefCell<VecDeque<String>>; 2]>::default();
        for role in [Responder, Initiator] {
            let node = executor.add_node(name(role), true);
            let other = Node { role, lines: Rc::clone(&lines), listeners: Cell::new(0) };
            executor.spawn(node, (body.play)(End::new(role, other)));
        }
        if let Err(ended) = executor.run() {
            panic!("{}, seed {seed}: {}\n{}", body.name, ended.why, ended.trace.join("\n"));
        }
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Initiator => "initiator",
        Responder => "responder",
    }
}

struct Node {
    role: Role,
    /// What the initiator, and what the responder has told.
    lines: Rc<[RefCell<VecDeque<String>>; 2]>,
    listeners: Cell<u32>,
}

impl Other for Node {
    fn tell(&self, line: &str) {
        self.lines[self.role as usize].borrow_mut().push_back(line.to_owned());
    }

    fn try_hear(&self) -> Option<String> {
        self.lines[1 - self.role as usize].borrow_mut().pop_front()
    }

    fn address(&self) -> String {
        self.listeners.set(self.listeners.get() + 1);
        format!("sim://{}.{}", name(self.role), self.listeners.get())
    }

    fn stop(&self, time: Duration) {
        stop(name(Responder), time);
    }

    fn go_on(&self) {}

    fn kill(&self) {
        kill(name(Responder), Fault::Death);
    }
}
