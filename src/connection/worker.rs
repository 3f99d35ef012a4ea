//! Workers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Active;
use super::domain_grants;
use super::engine::Engine;
use crate::{Config, Result};

/// Drives connections: one completion queue per device that they use. Whoever waits on a connection drives the worker it
/// belongs to, so a worker needs no thread of its own. A program that wants to use several cores makes several.
///
/// A worker is cheap to clone; it lives as long as its connections and listeners.
#[derive(Clone)]
pub struct Worker {
    engines: Arc<Mutex<Vec<Arc<Engine<Active>>>>>,
    config: Arc<Config>,
}

impl Worker {
    /// A worker. Devices are opened when the first connection needs them.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a setting is out of bounds; the error names it.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self { engines: Arc::default(), config: Arc::new(config) })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The engine of `device`, opened if there is none.
    pub(super) fn engine(&self, device: &str) -> Result<Arc<Engine<Active>>> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.iter().find(|engine| engine.device == device && engine.is_ours()) {
            return Ok(Arc::clone(engine));
        }
        let engine = Engine::open(device, &self.config)?;
        engines.push(Arc::clone(&engine));
        domain_grants::add_engine(&engine);
        Ok(engine)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("config", &self.config).finish_non_exhaustive()
    }
}
