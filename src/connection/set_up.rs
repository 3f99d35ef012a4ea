//! The handshake, the same for both ends.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::core::LinkKey;
use super::engine::Engine;
use super::established::Inner;
use super::link::{CONTROL_SENDS, Link};
use crate::protocol::{CONTROL_RECEIVES, Handshake, Refusal};
use crate::transport::{ChannelSizes, Link as _, Queue, SetUp, Transport};
use crate::{Error, ErrorKind, Result};

/// Bytes that every queue pair is asked to carry inline.
const INLINE: u32 = 256;

/// Pieces of memory that a request can have, if the device allows so many.
const SEGMENTS: u32 = 16;

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Connector,
    Listener,
}

/// Makes a connection of `end`; bounded by `deadline`. On failure, or when the future is dropped, everything is
/// taken back and an asking peer is refused.
pub(super) async fn set_up<T: Transport, S: SetUp<T>>(
    engine: Arc<Engine<T>>,
    mut end: S,
    role: Role,
    deadline: Instant,
) -> Result<Arc<Inner<T>>> {
    let config = &engine.config;
    let operation = match role {
        Role::Connector => "connect",
        Role::Listener => "accept",
    };
    let ours = Handshake {
        nonce: rand::random(),
        max_message: config.max_message_size,
        credits: config.receive_depth,
        domain: engine.domain.nonce(),
    };
    let ending = Arc::new(OnceLock::new());
    let peer = end.peer().to_owned();
    let refine = |error: Error| error.within(operation).with_peer(&peer).with_device(&engine.device);

    let mut introduction = None;
    if role == Role::Listener {
        // It has come with the request; a stranger costs us nothing.
        let theirs = end.negotiate(&[], deadline).await?;
        match parse(&theirs, operation) {
            Ok(theirs) => introduction = Some(theirs),
            Err(error) => {
                end.refuse(&Refusal::Incompatible.to_bytes());
                return Err(refine(error));
            }
        }
    }
    let key = match open(&engine, &mut end, ours, &ending) {
        Ok(key) => key,
        Err(error) => {
            end.refuse(&Refusal::Busy.to_bytes());
            return Err(refine(error));
        }
    };
    let abandon = Abandon { engine: Arc::clone(&engine), key, armed: true };
    let theirs = match introduction {
        Some(theirs) => theirs,
        None => parse(&end.negotiate(&ours.to_bytes(), deadline).await?, operation).map_err(refine)?,
    };
    let activated = engine.with(|core| {
        let channel = core.link(key).and_then(|link| link.channel);
        let channel = channel.ok_or_else(|| Error::new(ErrorKind::ConnectionBroken, operation))?;
        end.activate(&mut core.queue, channel)?;
        let capabilities = core.queue.capabilities(channel);
        let link = core.link(key).ok_or_else(|| Error::new(ErrorKind::ConnectionBroken, operation))?;
        link.open(&theirs, capabilities)?;
        Ok(capabilities)
    });
    let capabilities = match activated {
        Ok(capabilities) => capabilities,
        Err(error) => {
            // The queue pair goes before the identifier.
            drop(abandon);
            end.refuse(&Refusal::Busy.to_bytes());
            return Err(refine(error));
        }
    };
    let control = Arc::new(end.finish(&ours.to_bytes(), deadline).await?);
    let hang_up = Arc::clone(&control);
    engine.with(|core| {
        if let Some(link) = core.link(key) {
            link.hang_up = Some(Box::new(move || hang_up.disconnect()));
        }
    });
    let session = match role {
        Role::Connector => Handshake::session(&ours, &theirs),
        Role::Listener => Handshake::session(&theirs, &ours),
    };
    let lost = Arc::downgrade(&engine);
    control.on_lost(move |error| {
        if let Some(engine) = lost.upgrade() {
            engine.lost(key, error);
        }
    });
    abandon.disarm();
    engine.look_after();
    tracing::debug!(peer, device = engine.device, session, "connected");
    Ok(Arc::new(Inner::new(engine, key, ending, control, (session, theirs.domain), peer, capabilities)))
}

fn parse(introduction: &[u8], operation: &'static str) -> Result<Handshake> {
    Handshake::parse(introduction).map_err(|reason| Error::new(ErrorKind::Protocol, operation).with_detail(reason))
}

fn open<T: Transport, S: SetUp<T>>(
    engine: &Arc<Engine<T>>,
    end: &mut S,
    ours: Handshake,
    ending: &Arc<OnceLock<Error>>,
) -> Result<LinkKey> {
    let config = &engine.config;
    let link = Link::new(config, ours, Arc::clone(ending));
    let mut receives = link.receives()?;
    // Registered before the lock is taken: it is the slow part.
    if let Some(first) = receives.first_mut() {
        first.bind(&*engine.domain)?;
    }
    let sizes = ChannelSizes {
        segments: SEGMENTS,
        sends: config.send_depth + CONTROL_SENDS as u32,
        receives: config.receive_depth + CONTROL_RECEIVES,
        inline: INLINE,
    };
    engine.with(|core| {
        let channel = end.open_channel(&mut core.queue, sizes)?;
        let key = core.insert(link, channel);
        receives.into_iter().for_each(|buffer| core.post_receive(key, buffer));
        Ok(key)
    })
}

/// Takes a half-made connection back unless it was completed.
struct Abandon<T: Transport> {
    engine: Arc<Engine<T>>,
    key: LinkKey,
    armed: bool,
}

impl<T: Transport> Abandon<T> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<T: Transport> Drop for Abandon<T> {
    fn drop(&mut self) {
        if self.armed {
            self.engine.abandon(self.key);
        }
    }
}
