//! Workers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Active;
use super::domain_grants;
use super::engine::Engine;
use super::seats::Seats;
use crate::transport::Device;
use crate::{Config, Result};

/// Drives connections: one completion queue per device that they use. Whoever waits on a connection drives the worker it
/// belongs to, so a worker needs no thread of its own. A program that wants to use several cores makes several.
///
/// A worker is cheap to clone; it lives as long as its connections and listeners.
#[derive(Clone)]
pub struct Worker {
    engines: Arc<Mutex<Vec<Arc<Engine<Active>>>>>,
    config: Arc<Config>,
    /// Counts the connections of all engines.
    seats: Seats,
}

impl Worker {
    /// A worker. Devices are opened when the first connection needs them.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a setting is out of bounds; the error names it.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        Ok(Self { engines: Arc::default(), config: Arc::new(config), seats: Seats::default() })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Handles what has come on the worker's devices, once, without waiting; answers whether there was anything. Whoever awaits
    /// something on a connection drives the worker anyway: this is for programs with a loop of their own, which poll futures
    /// between two rounds, or only want what comes to be handled while they compute. It can be called from any thread; where another
    /// one is at it, there is nothing to do.
    ///
    /// ```no_run
    /// # fn example(worker: &zcmi::Worker, mut work: impl FnMut()) {
    /// loop {
    ///     if !worker.progress() {
    ///         work();
    ///     }
    /// }
    /// # }
    /// ```
    pub fn progress(&self) -> bool {
        let engine = |index: usize| {
            let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
            engines.get(index).cloned()
        };
        let engines = (0..).map_while(engine).filter(|engine| engine.is_ours());
        engines.fold(false, |happened, engine| engine.round() | happened)
    }

    /// The engine of `device`, opened if there is none.
    pub(super) fn engine(&self, device: &Device) -> Result<Arc<Engine<Active>>> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |engine: &&Arc<Engine<Active>>| {
            engine.transport == device.transport && engine.device == device.name && engine.is_ours()
        };
        if let Some(engine) = engines.iter().find(is_wanted) {
            return Ok(Arc::clone(engine));
        }
        let engine = Engine::open(device, &self.config, &self.seats)?;
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
