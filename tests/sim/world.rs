//! What the mix has of the world that it runs in. On a device it has another.

pub(crate) use zcmi::internals::simulation::{Task, note_progress, random, sleep, spawn};
