//! The calls of a client: which are open, who receives for all, who may send.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::task::Waker;
use std::time::Instant;

use super::application_error::{ApplicationError, text_of};
use super::call_frame::{Frame, Kind, Refusal, Side};
use crate::{Error, ErrorKind, Result};

/// Calls that every server takes before it says how many it does.
pub(super) const FIRST_WINDOW: usize = 16;

/// All under the client's lock. It sends and receives nothing. `M` is a message.
pub(super) struct Calls<M> {
    /// By number: who is woken first is no accident.
    open: BTreeMap<u64, Call<M>>,
    /// Calls that wait until they may send, in order. Some may be gone.
    queue: VecDeque<u64>,
    last: u64,
    window: usize,
    /// Calls that the server has not answered, cancelled ones too.
    unanswered: usize,
    /// The call whose task is woken when a message has come.
    receiver: Option<u64>,
    ended: Option<Error>,
}

struct Call<M> {
    stage: Stage,
    waker: Option<Waker>,
    deadline: Option<Instant>,
    /// The message with the response, or why there is none.
    answer: Option<Result<M>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits until it may send.
    Queued,
    /// It may send, and has not begun.
    Admitted,
    Sent,
    Answered,
    /// Nobody waits for it. The server's answer makes room for another call.
    Cancelled,
}

/// What has to be done when a call is given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    Nothing,
    TellServer,
}

impl<M: Deref<Target = [u8]>> Calls<M> {
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            queue: VecDeque::new(),
            last: 0,
            window: FIRST_WINDOW,
            unanswered: 0,
            receiver: None,
            ended: None,
        }
    }

    /// A new call, and whom to wake.
    pub(super) fn open(&mut self, deadline: Option<Instant>) -> (Result<u64>, Vec<Waker>) {
        let mut woken = Vec::new();
        if let Some(ended) = &self.ended {
            return (Err(ended.again("call")), woken);
        }
        self.last += 1;
        self.open.insert(self.last, Call { stage: Stage::Queued, waker: None, deadline, answer: None });
        self.queue.push_back(self.last);
        self.admit(&mut woken);
        (Ok(self.last), woken)
    }

    /// The answer, once it is there; until then `waker` is called when it comes, and when the call may send or is to
    /// receive.
    pub(super) fn poll(&mut self, id: u64, waker: &Waker) -> Option<Result<M>> {
        let call = self.open.get_mut(&id)?;
        if let Some(answer) = call.answer.take() {
            return Some(answer);
        }
        if let Some(ended) = &self.ended {
            return Some(Err(ended.again("call")));
        }
        if !call.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            call.waker = Some(waker.clone());
        }
        None
    }

    /// Whether the call may send and has not; from here on it has.
    pub(super) fn begin_to_send(&mut self, id: u64) -> bool {
        let Some(call) = self.open.get_mut(&id).filter(|call| call.stage == Stage::Admitted) else { return false };
        call.stage = Stage::Sent;
        true
    }

    /// Whether the call is the one to receive for all. One without a receiver becomes it.
    pub(super) fn is_receiver(&mut self, id: u64) -> bool {
        *self.receiver.get_or_insert(id) == id
    }

    /// The task to wake when a message has come.
    pub(super) fn receiver(&self) -> Option<Waker> {
        self.open.get(&self.receiver?)?.waker.clone()
    }

    /// The receiver has not come though it was woken: somebody else is to receive. Answers whom to wake.
    pub(super) fn replace_receiver(&mut self) -> Option<Waker> {
        let late = self.receiver;
        self.hand_over(late)
    }

    /// Makes another the receiver at once: should it be given up before it is polled, it hands over in its turn. Those who have
    /// no waker will be polled, and the first becomes it if nobody is.
    fn hand_over(&mut self, from: Option<u64>) -> Option<Waker> {
        let waits = |(id, call): (&u64, &Call<M>)| {
            if Some(*id) == from || call.answer.is_some() { None } else { Some((*id, call.waker.clone()?)) }
        };
        let (receiver, waker) = self.open.iter().find_map(waits).unzip();
        self.receiver = receiver;
        waker
    }

    /// Whether several wait, so that one which is never polled may keep others from being answered.
    pub(super) fn are_several(&self) -> bool {
        self.open.len() > 1
    }

    /// How many there are, given up or not, and for how many the server is, or will be, asked for an answer.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.open.len(), self.unanswered)
    }

    /// Whether the server has calls that it will still answer.
    pub(super) fn are_answers_due(&self) -> bool {
        self.unanswered > 0 && self.ended.is_none()
    }

    /// The call's future is gone. Answers what has to be done, and whom to wake.
    pub(super) fn give_up(&mut self, id: u64) -> (GivenUp, Vec<Waker>) {
        let mut woken = Vec::new();
        if self.receiver == Some(id) {
            woken.extend(self.hand_over(Some(id)));
        }
        let Some(call) = self.open.get_mut(&id) else { return (GivenUp::Nothing, woken) };
        let has_ended = self.ended.is_some();
        match call.stage {
            Stage::Sent if !has_ended => {
                (call.stage, call.waker, call.deadline) = (Stage::Cancelled, None, None);
                return (GivenUp::TellServer, woken);
            }
            Stage::Admitted => self.unanswered -= 1,
            Stage::Answered | Stage::Cancelled | Stage::Queued | Stage::Sent => {}
        }
        self.open.remove(&id);
        if self.queue.len() > 2 * self.open.len() + 16 {
            // Those that were given up before they could send.
            self.queue.retain(|id| self.open.contains_key(id));
        }
        self.admit(&mut woken);
        (GivenUp::Nothing, woken)
    }

    /// Those whose time is over are to be woken; the earliest deadline of the others is next.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let mut woken = Vec::new();
        let mut next: Option<Instant> = None;
        for call in self.open.values_mut() {
            match call.deadline {
                Some(deadline) if deadline <= now => woken.extend(call.waker.take()),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        (woken, next)
    }

    /// A message has come. Answers whom to wake, or what is wrong with it.
    pub(super) fn accept(&mut self, message: M, woken: &mut Vec<Waker>) -> Result<()> {
        let protocol = |reason: &str| Error::new(ErrorKind::Protocol, "call").with_detail(reason);
        let (frame, payload) = Frame::parse(&message, Side::Server).map_err(protocol)?;
        let answer = match frame.kind {
            Kind::Window { calls } => {
                self.window = calls as usize;
                self.admit(woken);
                return Ok(());
            }
            Kind::Gone => {
                let text = text_of(payload);
                let detail = if text.is_empty() { "the server has stopped serving".to_owned() } else { text };
                return Err(Error::new(ErrorKind::PeerClosed, "call").with_detail(detail));
            }
            Kind::Failed { code } => {
                let error = ApplicationError::of_bytes(code, payload);
                Err(Error::new(ErrorKind::Application, "call").with_source(error))
            }
            Kind::Refused(refusal) => Err(refused(refusal, text_of(payload))),
            _ => Ok(()),
        };
        self.answered(frame.call, answer.map(|()| message), woken)
    }

    fn answered(&mut self, id: u64, answer: Result<M>, woken: &mut Vec<Waker>) -> Result<()> {
        match self.open.get_mut(&id) {
            Some(call) if call.stage == Stage::Sent => {
                call.stage = Stage::Answered;
                call.answer = Some(answer);
                woken.extend(call.waker.take());
            }
            Some(call) if call.stage == Stage::Cancelled => drop(self.open.remove(&id)),
            // The answer and the cancellation have crossed.
            None if id <= self.last => return Ok(()),
            _ => {
                let detail = format!("an answer to call {id}, which was not made or has been answered");
                return Err(Error::new(ErrorKind::Protocol, "call").with_detail(detail));
            }
        }
        self.unanswered -= 1;
        self.admit(woken);
        Ok(())
    }

    /// There will be no more answers. Answers whom to wake.
    pub(super) fn end(&mut self, error: Error) -> Vec<Waker> {
        self.ended.get_or_insert(error);
        self.receiver = None;
        self.open.retain(|_, call| call.stage != Stage::Cancelled);
        self.open.values_mut().filter_map(|call| call.waker.take()).collect()
    }

    fn admit(&mut self, woken: &mut Vec<Waker>) {
        while self.unanswered < self.window
            && let Some(id) = self.queue.pop_front()
        {
            let Some(call) = self.open.get_mut(&id) else { continue };
            call.stage = Stage::Admitted;
            self.unanswered += 1;
            woken.extend(call.waker.take());
        }
    }
}

fn refused(refusal: Refusal, text: String) -> Error {
    let (kind, detail) = match refusal {
        Refusal::Cancelled => (ErrorKind::Protocol, "the server takes the call for cancelled"),
        Refusal::OutOfTime => (ErrorKind::TimedOut, "the server's handler was not ready in time"),
        Refusal::Panicked => (ErrorKind::Panicked, "the server goes on"),
        Refusal::Undecodable => (ErrorKind::Decode, "the server cannot decode the request"),
        Refusal::Unencodable => (ErrorKind::Encode, "the server cannot encode its response"),
    };
    let detail = if text.is_empty() { detail.to_owned() } else { format!("{detail}: {text}") };
    Error::new(kind, "call").with_detail(detail)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type TestCalls = Calls<Vec<u8>>;

    fn open(calls: &mut TestCalls) -> (u64, Arc<Count>, Waker) {
        let (opened, woken) = calls.open(None);
        woken.into_iter().for_each(Waker::wake);
        let count = Arc::new(Count::default());
        let (id, waker) = (opened.expect("it has not ended"), Waker::from(Arc::clone(&count)));
        assert!(calls.poll(id, &waker).is_none());
        (id, count, waker)
    }

    fn server(kind: Kind, call: u64) -> Vec<u8> {
        Frame { kind, call }.to_bytes().to_vec()
    }

    fn accept(calls: &mut TestCalls, message: Vec<u8>) -> Result<()> {
        let mut woken = Vec::new();
        let accepted = calls.accept(message, &mut woken);
        woken.into_iter().for_each(Waker::wake);
        accepted
    }

    #[test]
    fn each_answer_wakes_the_call_that_it_is_for() {
        let mut calls = TestCalls::new();
        let [(first, first_count, first_waker), (second, second_count, second_waker)] =
            [open(&mut calls), open(&mut calls)];
        assert!(calls.begin_to_send(first) && calls.begin_to_send(second) && !calls.begin_to_send(first));
        accept(&mut calls, server(Kind::Response, second)).expect("valid");
        assert_eq!((first_count.0.load(Ordering::Relaxed), second_count.0.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(calls.poll(second, &second_waker).expect("answered").expect("a response").len(), 16);
        assert_eq!(calls.give_up(second).0, GivenUp::Nothing);
        accept(&mut calls, server(Kind::Failed { code: 9 }, first)).expect("valid");
        let error = calls.poll(first, &first_waker).expect("answered").expect_err("an error");
        assert_eq!((error.kind(), error.application().expect("there").code()), (ErrorKind::Application, 9));
    }

    #[test]
    fn only_the_window_is_open_at_once_and_those_who_wait_come_in_order() {
        let mut calls = TestCalls::new();
        let all: Vec<_> = (0..20).map(|_| open(&mut calls)).collect();
        let may_send: Vec<_> = all.iter().map(|(id, ..)| calls.begin_to_send(*id)).collect();
        assert_eq!(may_send.iter().filter(|may| **may).count(), FIRST_WINDOW);
        assert!(may_send[..FIRST_WINDOW].iter().all(|may| *may));
        // One that waits is given up; the next in order takes the place of one that is answered.
        assert_eq!(calls.give_up(all[16].0).0, GivenUp::Nothing);
        accept(&mut calls, server(Kind::Response, all[3].0)).expect("valid");
        assert_eq!([17, 18].map(|index| calls.begin_to_send(all[index].0)), [true, false]);
        assert_eq!(all[17].1.0.load(Ordering::Relaxed), 1);
        // One that may send and has not makes room at once, and one that has when the server confirms it.
        accept(&mut calls, server(Kind::Response, all[4].0)).expect("valid");
        assert_eq!(calls.give_up(all[18].0).0, GivenUp::Nothing);
        assert!(calls.begin_to_send(all[19].0));
        let (late, ..) = open(&mut calls);
        assert_eq!(calls.give_up(all[5].0).0, GivenUp::TellServer);
        assert!(!calls.begin_to_send(late));
        accept(&mut calls, server(Kind::Refused(Refusal::Cancelled), all[5].0)).expect("valid");
        assert!(calls.begin_to_send(late));
        // More than before.
        accept(&mut calls, server(Kind::Window { calls: 40 }, 0)).expect("valid");
        let more: Vec<_> = (0..24).map(|_| open(&mut calls).0).collect();
        assert!(more[..24].iter().all(|id| calls.begin_to_send(*id)));
        let (late, ..) = open(&mut calls);
        assert!(!calls.begin_to_send(late));
    }

    #[test]
    fn one_receives_for_all_and_hands_over() {
        let mut calls = TestCalls::new();
        let [(first, first_count, _), (second, second_count, _)] = [open(&mut calls), open(&mut calls)];
        assert!(calls.is_receiver(first) && !calls.is_receiver(second));
        calls.receiver().expect("there is one").wake();
        assert_eq!(first_count.0.load(Ordering::Relaxed), 1);
        calls.give_up(first).1.into_iter().for_each(Waker::wake);
        assert_eq!(second_count.0.load(Ordering::Relaxed), 1);
        assert!(calls.is_receiver(second));
        // One that does not come is replaced.
        let (third, third_count, _) = open(&mut calls);
        calls.replace_receiver().expect("another waits").wake();
        assert_eq!(third_count.0.load(Ordering::Relaxed), 1);
        assert!(calls.is_receiver(third));
    }

    #[test]
    fn what_crosses_is_ignored_and_what_cannot_be_is_an_error() {
        let mut calls = TestCalls::new();
        let [(first, ..), (second, ..)] = [open(&mut calls), open(&mut calls)];
        assert!(calls.begin_to_send(first) && calls.begin_to_send(second));
        accept(&mut calls, server(Kind::Response, first)).expect("valid");
        calls.give_up(first);
        accept(&mut calls, server(Kind::Refused(Refusal::Cancelled), first))
            .expect("the cancellation has crossed the answer");
        assert_eq!(calls.give_up(second).0, GivenUp::TellServer);
        accept(&mut calls, server(Kind::Response, second)).expect("a late response");
        accept(&mut calls, server(Kind::Refused(Refusal::Cancelled), second)).expect("and the confirmation");
        let (third, ..) = open(&mut calls);
        for hostile in [
            server(Kind::Response, third),
            server(Kind::Response, third + 1),
            server(Kind::Cancel, third),
            vec![1, 2, 3],
        ] {
            let error = accept(&mut calls, hostile.clone()).expect_err("hostile");
            assert_eq!(error.kind(), ErrorKind::Protocol, "{hostile:?}: {error}");
        }
        assert!(calls.begin_to_send(third));
        accept(&mut calls, server(Kind::Response, third)).expect("valid");
        accept(&mut calls, server(Kind::Response, third)).expect_err("twice");
    }

    #[test]
    fn when_there_are_no_more_answers_all_are_told() {
        let mut calls = TestCalls::new();
        let [(first, first_count, waker), (second, ..)] = [open(&mut calls), open(&mut calls)];
        assert!(calls.begin_to_send(first));
        let error = accept(&mut calls, server(Kind::Gone, 0)).expect_err("the end");
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        calls.end(error).into_iter().for_each(Waker::wake);
        assert_eq!(first_count.0.load(Ordering::Relaxed), 1);
        for id in [first, second] {
            let error = calls.poll(id, &waker).expect("over").expect_err("over");
            assert_eq!(error.kind(), ErrorKind::PeerClosed, "{error}");
            assert_eq!(calls.give_up(id).0, GivenUp::Nothing);
        }
        assert!(calls.open(None).0.is_err() && calls.open.is_empty());
    }

    #[test]
    fn those_whose_time_is_over_are_woken() {
        let mut calls = TestCalls::new();
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let count = Arc::new(Count::default());
        for deadline in [Some(late), None, Some(soon)] {
            let id = calls.open(deadline).0.expect("it has not ended");
            calls.poll(id, &Waker::from(Arc::clone(&count)));
        }
        let (woken, next) = calls.overdue(now);
        assert_eq!((woken.len(), next), (0, Some(soon)));
        let (woken, next) = calls.overdue(soon);
        assert_eq!((woken.len(), next), (1, Some(late)));
    }

    #[test]
    fn of_those_that_are_given_up_together_one_that_remains_receives() {
        let mut calls = TestCalls::new();
        let [(first, ..), (second, ..), (third, count, _)] = [open(&mut calls), open(&mut calls), open(&mut calls)];
        assert!(calls.is_receiver(first));
        for id in [first, second] {
            // It is not polled in between, though it was woken to receive.
            calls.give_up(id).1.into_iter().for_each(Waker::wake);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(calls.is_receiver(third) && calls.receiver().is_some());
    }

    #[test]
    fn calls_that_are_given_up_leave_nothing_behind() {
        let mut calls = TestCalls::new();
        let stuck: Vec<_> = (0..FIRST_WINDOW).map(|_| open(&mut calls).0).collect();
        for _ in 0..10_000 {
            let (id, ..) = open(&mut calls);
            calls.give_up(id);
        }
        assert_eq!(calls.open.len(), stuck.len());
        assert!(calls.queue.len() < 100, "{}", calls.queue.len());
    }
}
