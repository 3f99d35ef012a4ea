//! The server: reads and writes the client's memory.

use std::net::SocketAddr;
use std::time::Duration;

use zcmi::verbs::{ConnectionEventKind as Kind, ConnectionId, EventChannel, RegisteredBuffer, SendOperation};

use crate::Settings;
use crate::failure::{Failure, Result};
use crate::info::Info;
use crate::session::Session;
use crate::text;

/// Connect requests that may wait.
const BACKLOG: u32 = 16;

pub(crate) fn run(address: SocketAddr, is_persistent: bool, settings: Settings) -> Result<()> {
    let channel = EventChannel::create()?;
    let listener = ConnectionId::create(&channel)?;
    listener.bind(address)?;
    listener.listen(BACKLOG)?;
    eprintln!("rping: listening on {}", listener.local_address().unwrap_or(address));
    loop {
        let Some(event) = channel.wait(Duration::MAX)? else { continue };
        if event.kind != Kind::ConnectRequest {
            // The device is going away; nothing else comes to a listener.
            drop(event.expect(Kind::ConnectRequest)?);
            continue;
        }
        let peer = event.route.and_then(|route| route.peer).map_or_else(|| "?".to_owned(), |peer| peer.to_string());
        let Some(id) = event.request else { continue };
        if !is_persistent {
            drop(listener);
            return serve(id, &peer, settings);
        }
        std::thread::spawn(move || {
            if let Err(failure) = serve(id, &peer, settings) {
                eprintln!("rping: {failure}");
            }
        });
    }
}

fn serve(mut id: ConnectionId, peer: &str, settings: Settings) -> Result<()> {
    let mut pings = 0;
    let answer = EventChannel::create().map_err(Failure::from).and_then(|channel| {
        // Its events are for this thread alone.
        id.migrate(&channel)?;
        let mut session = Session::new(id, settings)?;
        session.accept()?;
        let answer = pong(&mut session, &mut pings, settings);
        session.close();
        answer
    });
    match answer {
        Ok(()) => {
            eprintln!("rping: {peer} has disconnected after {pings} pings");
            Ok(())
        }
        Err(failure) => Err(Failure(format!("{peer}, after {pings} pings: {failure}"))),
    }
}

fn pong(session: &mut Session, pings: &mut u32, settings: Settings) -> Result<()> {
    let mut buffer = RegisteredBuffer::allocate(session.domain(), settings.size)?;
    while let Some(start) = session.receive("the next ping")? {
        let length = start.size as usize;
        if length == 0 || length > settings.size {
            return Err(Failure(format!("the client's {length} bytes do not fit {} (-S)", settings.size)));
        }
        session.say(|| format!("the client has {length} bytes to read"));
        buffer.set_used(0..length);
        buffer = session.transfer(SendOperation::Read(start.place), buffer, "the read of the client's memory")?;
        if settings.validate {
            text::compare(*pings, &text::of_ping(*pings, length), &buffer[..length])?;
        }
        if settings.verbose {
            text::print("server ping data", &buffer[..length])?;
        }
        session.send(Info::default())?;
        let Some(sink) = session.receive("the place to write to")? else {
            return Err(Failure("the client disconnected in the middle of a ping".into()));
        };
        if (sink.size as usize) < length {
            return Err(Failure(format!("the client has {length} bytes to read, and {} to write to", sink.size)));
        }
        buffer = session.transfer(SendOperation::Write(sink.place), buffer, "the write to the client's memory")?;
        session.send(Info::default())?;
        *pings = pings.wrapping_add(1);
    }
    Ok(())
}
