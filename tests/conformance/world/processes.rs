//! Two processes, on what transports there really are.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{End, Initiator, Other, Responder};
use crate::Body;
use crate::common::{self, Peer};

/// Bound of a body.
const BOUND: Duration = Duration::from_secs(120);

pub(super) fn run(body: &'static Body) {
    let Some(address) = common::device_address() else { return };
    let peer = std::rc::Rc::new(Process {
        peer: RefCell::new(Peer::start(body.name)),
        address: address.clone(),
        is_killed: Cell::new(false),
    });
    let other = std::rc::Rc::clone(&peer);
    common::on_device_within(BOUND, |_| (body.play)(End::new(Initiator, other)));
    let Ok(Process { peer, is_killed, .. }) = std::rc::Rc::try_unwrap(peer) else { panic!("the end has gone") };
    match is_killed.get() {
        true => peer.into_inner().kill(),
        false => assert!(peer.into_inner().finish().success(), "the other end has failed"),
    }
}

pub(super) fn play_other(body: &'static Body) {
    let address = common::device_address().expect("the test has found it");
    let told = RefCell::new(common::told());
    let part = (body.play)(End::new(Responder, Parent { told, address }));
    common::play(async { tokio::time::timeout(BOUND, part).await.expect("the other end ends in time") });
}

/// The responder, as the initiator has it.
struct Process {
    peer: RefCell<Peer>,
    address: String,
    is_killed: Cell<bool>,
}

impl Other for std::rc::Rc<Process> {
    fn tell(&self, line: &str) {
        self.peer.borrow_mut().tell(line);
    }

    fn try_hear(&self) -> Option<String> {
        self.peer.borrow().try_hear()
    }

    fn address(&self) -> String {
        common::uri(format_args!("{}:0", self.address))
    }

    fn stop(&self, _: Duration) {
        self.peer.borrow().signal(Signal::STOP);
    }

    fn go_on(&self) {
        self.peer.borrow().signal(Signal::CONT);
    }

    fn kill(&self) {
        self.is_killed.set(true);
        self.peer.borrow().signal(Signal::KILL);
    }
}

/// The initiator, as the responder has it.
struct Parent {
    told: RefCell<UnboundedReceiver<String>>,
    address: String,
}

impl Other for Parent {
    fn tell(&self, line: &str) {
        common::say(line);
    }

    fn try_hear(&self) -> Option<String> {
        self.told.borrow_mut().try_recv().ok()
    }

    fn address(&self) -> String {
        common::uri(format_args!("{}:0", self.address))
    }

    fn stop(&self, _: Duration) {
        unreachable!("it is the initiator that does it");
    }

    fn go_on(&self) {
        unreachable!("it is the initiator that does it");
    }

    fn kill(&self) {
        unreachable!("it is the initiator that does it");
    }
}
