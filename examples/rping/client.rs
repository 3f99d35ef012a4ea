//! The client: owns the memory, and asks the server to read and write it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zcmi::verbs::{Access, ConnectionEventKind as Kind, ConnectionId, EventChannel, ExposedRegion};

use crate::Settings;
use crate::failure::{Failure, Result};
use crate::info::Info;
use crate::session::{Session, next_event};
use crate::text;

pub(crate) fn run(source: Option<SocketAddr>, peer: SocketAddr, settings: Settings) -> Result<()> {
    let id = ConnectionId::create(&EventChannel::create()?)?;
    resolve(&id, source, peer, settings).map_err(|failure| Failure(format!("{peer}: {failure}")))?;
    let mut session = Session::new(id, settings)?;
    session.connect().map_err(|failure| Failure(format!("{peer}: {failure}")))?;
    session.say(|| format!("connected to {peer}"));
    let answer = ping(&mut session, settings);
    session.close();
    answer
}

fn resolve(id: &ConnectionId, source: Option<SocketAddr>, peer: SocketAddr, settings: Settings) -> Result<()> {
    let begun = Instant::now();
    // The kernel may look at a neighbour's answer only when the time of an attempt is over.
    let mut attempt = Duration::from_millis(100);
    loop {
        match source {
            Some(source) => id.resolve_address_from(source, peer, attempt)?,
            None => id.resolve_address(peer, attempt)?,
        }
        let event = next_event(id.channel(), settings, "the address to be resolved")?;
        let is_too_early = event.kind == Kind::AddressError && event.status == -libc::ETIMEDOUT;
        if !is_too_early || begun.elapsed() >= settings.timeout {
            event.expect(Kind::AddressResolved)?;
            break;
        }
        attempt *= 2;
    }
    id.resolve_route(settings.timeout)?;
    next_event(id.channel(), settings, "the route to be resolved")?.expect(Kind::RouteResolved)?;
    Ok(())
}

fn ping(session: &mut Session, settings: Settings) -> Result<()> {
    let start = ExposedRegion::allocate(session.domain(), settings.size, Access::REMOTE_READ)?;
    let sink = ExposedRegion::allocate(session.domain(), settings.size, Access::REMOTE_WRITE)?;
    let mut found = vec![0; settings.size];
    let mut number = 0;
    while settings.count == 0 || number < settings.count {
        let sent = text::of_ping(number, settings.size);
        start.store(0, &sent);
        // What an earlier ping left must not pass for an answer.
        sink.store(0, &sent.iter().map(|byte| !byte).collect::<Vec<_>>());
        session.send(Info::of(&start))?;
        go_ahead(session, "the server to read")?;
        session.send(Info::of(&sink))?;
        go_ahead(session, "the server to write")?;
        sink.load(0, &mut found);
        if settings.validate {
            text::compare(number, &sent, &found)?;
        }
        if settings.verbose {
            text::print("ping data", &found)?;
        }
        number = number.wrapping_add(1);
    }
    Ok(())
}

fn go_ahead(session: &mut Session, awaiting: &str) -> Result<()> {
    match session.receive(awaiting)? {
        Some(_) => Ok(()),
        None => Err(Failure(format!("the server disconnected; waited for {awaiting}"))),
    }
}
