//! Messages, and buffers that are handed over: there and back, or in one direction.

use std::future::Future;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use zcmi::{Buffer, Connection, Message};

use super::Figures;
use crate::bench::answer::MOST_COPIED;
use crate::bench::failure::{Failure, Result};
use crate::bench::pace::{Amount, Pace};
use crate::bench::samples::Samples;
use crate::bench::session::Session;
use crate::bench::test::{Case, Measure, Test};
use crate::bench::wire::{Command, is_filled};

const SEED: u64 = 5;

pub(super) async fn run(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    match case.measure {
        Measure::Latency => there_and_back(session, case, pace).await,
        Measure::Rate => one_way(session, case, pace).await,
    }
}

async fn there_and_back(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let connection = &session.connection;
    let is_handed = case.test == Test::HandOver;
    session.done(&Command::Echo { hand_over: is_handed }).await?;
    let mut ball = Ball { connection, is_handed, buffer: Some(session.buffer(case.size, SEED)?) };
    ball.try_once(session, case, SEED).await?;
    ball.play(pace.warm_up, &mut Samples::new(true)).await?;
    let mut samples = Samples::new(true);
    let operations = ball.play(pace.measured, &mut samples).await?;
    ball.try_once(session, case, SEED + 1).await?;
    session.done(&Command::End).await?;
    Ok(Figures::of_latency(&samples, operations))
}

/// What goes to and fro.
struct Ball<'a> {
    connection: &'a Connection,
    /// Whether the same buffer comes back, or a message.
    is_handed: bool,
    buffer: Option<Buffer>,
}

impl Ball<'_> {
    async fn play(&mut self, amount: Amount, samples: &mut Samples) -> Result<u64> {
        let mut run = amount.begin();
        loop {
            let begun = Instant::now();
            let message = self.throw().await?;
            let ended = Instant::now();
            samples.record(ended - begun);
            self.keep(message)?;
            if !run.goes_on_at(ended) {
                return Ok(run.done());
            }
        }
    }

    /// Throws the pattern of `seed`, and compares what comes back.
    async fn try_once(&mut self, session: &Session, case: &Case, seed: u64) -> Result<()> {
        self.buffer = Some(session.buffer(case.size, seed)?);
        let message = self.throw().await?;
        if message.len() != case.size || !is_filled(&message, seed) {
            return Err(Failure::new("what came back is not what was sent"));
        }
        self.keep(message)
    }

    async fn throw(&mut self) -> Result<Message> {
        let buffer = self.buffer.take().ok_or_else(|| Failure::new("there is no buffer"))?;
        if self.is_handed {
            self.connection.hand_over(buffer).await?;
        } else if buffer.len() <= MOST_COPIED {
            self.connection.send(&buffer).await?;
            self.buffer = Some(buffer);
        } else {
            self.buffer = Some(self.connection.send_owned(buffer).await?);
        }
        Ok(self.connection.recv().await?)
    }

    fn keep(&mut self, message: Message) -> Result<()> {
        if self.is_handed {
            self.buffer = Some(message.into_buffer()?);
        }
        Ok(())
    }
}

async fn one_way(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let group = (case.depth / 2).max(1) as u32;
    session.done(&Command::Sink { group, size: case.size, seed: SEED }).await?;
    let mut stream = Stream { session, case, group: u64::from(group), sent: 0, answered: 0, buffers: Vec::new() };
    stream.buffers.push(session.buffer(case.size, SEED)?);
    stream.one().await?;
    stream.run(pace.warm_up).await?;
    let figures = stream.run(pace.measured).await?;
    stream.buffers.clear();
    stream.buffers.push(session.buffer(case.size, SEED)?);
    stream.one().await?;
    session.sunk(stream.sent).await?;
    Ok(figures)
}

/// Messages in one direction. The other end says when it has received some.
struct Stream<'a> {
    session: &'a Session,
    case: &'a Case,
    group: u64,
    sent: u64,
    /// Of those that were sent, those that were received for sure.
    answered: u64,
    /// Those that are not in flight.
    buffers: Vec<Buffer>,
}

impl Stream<'_> {
    async fn run(&mut self, amount: Amount) -> Result<Figures> {
        if self.is_lent() { self.run_lent(amount).await } else { self.run_windowed(amount).await }
    }

    /// Whether a message is with the peer when its future resolves: then that is what bounds those in flight.
    fn is_lent(&self) -> bool {
        match self.case.test {
            Test::HandOver => !self.session.connection.shares_pages(),
            _ => self.case.size > MOST_COPIED,
        }
    }

    /// Messages that are on their way when their future has resolved.
    async fn run_windowed(&mut self, amount: Amount) -> Result<Figures> {
        let before = self.sent;
        let mut is_over = false;
        let mut run = amount.begin();
        loop {
            while self.sent + 1 - self.answered > self.case.depth as u64 {
                self.answer().await?;
            }
            self.one().await?;
            is_over = is_over || !run.goes_on();
            // All of a group, so that the last is answered too.
            if is_over && self.sent.is_multiple_of(self.group) {
                break;
            }
        }
        while self.answered < self.sent {
            self.answer().await?;
        }
        Ok(Figures::of_rate(self.sent - before, run.elapsed()))
    }

    async fn answer(&mut self) -> Result<()> {
        let answer = self.session.connection.recv().await?;
        if !answer.is_empty() {
            return Err(Failure::new("the peer said something out of turn"));
        }
        self.answered += self.group;
        Ok(())
    }

    async fn run_lent(&mut self, amount: Amount) -> Result<Figures> {
        let before = self.sent;
        let mut in_flight = FuturesUnordered::new();
        let mut run = amount.begin();
        loop {
            if in_flight.len() == self.case.depth {
                self.buffers.extend(next(&mut in_flight).await?);
            }
            let buffer = self.take()?;
            in_flight.push(send(&self.session.connection, self.case.test, buffer));
            self.sent += 1;
            // What the other end says of its groups is not needed.
            while self.session.connection.try_recv()?.is_some() {}
            if !run.goes_on() {
                break;
            }
        }
        while !in_flight.is_empty() {
            self.buffers.extend(next(&mut in_flight).await?);
        }
        Ok(Figures::of_rate(self.sent - before, run.elapsed()))
    }

    /// Sends one.
    async fn one(&mut self) -> Result<()> {
        let buffer = self.take()?;
        let sent = send(&self.session.connection, self.case.test, buffer).await?;
        self.buffers.extend(sent);
        self.sent += 1;
        Ok(())
    }

    /// A buffer that can be sent. What is handed over may have whatever bytes: the peer compares the first and the last message only.
    fn take(&mut self) -> Result<Buffer> {
        match self.buffers.pop() {
            Some(buffer) => Ok(buffer),
            None if self.case.test == Test::HandOver => {
                let mut buffer = self.session.connection.allocate(self.case.size)?;
                // It must not look like a command.
                buffer[0] = 0;
                Ok(buffer)
            }
            None => self.session.buffer(self.case.size, SEED),
        }
    }
}

/// Sends a buffer; gives it back if the peer has not got it for good.
async fn send(connection: &Connection, test: Test, buffer: Buffer) -> Result<Option<Buffer>> {
    if test == Test::HandOver {
        connection.hand_over(buffer).await?;
        return Ok(None);
    }
    if buffer.len() <= MOST_COPIED {
        connection.send(&buffer).await?;
        return Ok(Some(buffer));
    }
    Ok(Some(connection.send_owned(buffer).await?))
}

async fn next<F: Future<Output = Result<Option<Buffer>>>>(
    in_flight: &mut FuturesUnordered<F>,
) -> Result<Option<Buffer>> {
    match in_flight.next().await {
        Some(sent) => sent,
        None => Ok(None),
    }
}
