//! What GETs may show: each key has one client that puts it, so what is newer is known.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::value::Label;

/// What was put, by all clients of this run.
pub(crate) struct Book {
    run: u64,
    value_size: usize,
    /// For each key, the number of its last PUT.
    issued: Vec<AtomicU64>,
    pages: Mutex<HashMap<u64, Arc<Page>>>,
}

/// What is known of the table of one start of the server.
pub(crate) struct Page {
    /// For each key, the newest PUT that was answered, or that some GET has shown.
    known: Vec<AtomicU64>,
    /// Keys of which a PUT was not answered, since the connection was lost: it may be carried out later.
    is_open: Vec<AtomicBool>,
}

impl Book {
    /// An empty book.
    pub(crate) fn new(keys: usize, value_size: usize) -> Self {
        let issued = (0..keys).map(|_| AtomicU64::new(0)).collect();
        Self { run: rand::random(), value_size, issued, pages: Mutex::default() }
    }

    /// The page of a start of the server.
    pub(crate) fn page(&self, incarnation: u64) -> Arc<Page> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let known = self.issued.iter().map(|_| AtomicU64::new(0)).collect();
            Arc::new(Page { known, is_open: self.issued.iter().map(|_| AtomicBool::new(false)).collect() })
        };
        Arc::clone(pages.entry(incarnation).or_insert_with(new))
    }

    /// The number and the value of the next PUT of a key.
    pub(crate) fn next(&self, key: usize) -> (u64, Vec<u8>) {
        let sequence = self.issued[key].fetch_add(1, Ordering::SeqCst) + 1;
        (sequence, Label { run: self.run, key: key as u64, sequence }.value(self.value_size))
    }

    /// Checks what a GET has shown that began when `known` was the newest.
    pub(crate) fn check(&self, page: &Page, key: usize, known: u64, value: Option<&[u8]>) -> Result<(), String> {
        let least = if page.is_open[key].load(Ordering::SeqCst) { 0 } else { known };
        let Some(value) = value else {
            return if least == 0 {
                Ok(())
            } else {
                Err(format!("key {key} is not there, though PUT {least} was answered"))
            };
        };
        let label = Label::of(value).map_err(|wrong| format!("key {key}: {wrong}"))?;
        if label.key != key as u64 {
            return Err(format!("key {key} has a value of key {}", label.key));
        }
        if label.run != self.run {
            // What an earlier run has left.
            return if least == 0 { Ok(()) } else { Err(format!("key {key} has a value of another run")) };
        }
        if value.len() != self.value_size {
            return Err(format!("key {key} has a value of {} bytes", value.len()));
        }
        if label.sequence > self.issued[key].load(Ordering::SeqCst) {
            return Err(format!("key {key} has PUT {}, which was never made", label.sequence));
        }
        if label.sequence < least {
            return Err(format!(
                "key {key} has PUT {}, though PUT {least} was answered or read before",
                label.sequence
            ));
        }
        page.learn(key, label.sequence);
        Ok(())
    }
}

impl Page {
    /// The newest PUT of a key that is known to be in the table.
    pub(crate) fn known(&self, key: usize) -> u64 {
        self.known[key].load(Ordering::SeqCst)
    }

    /// A PUT was answered, or read.
    pub(crate) fn learn(&self, key: usize, sequence: u64) {
        self.known[key].fetch_max(sequence, Ordering::SeqCst);
    }

    /// Nobody knows whether a PUT is carried out, or when.
    pub(crate) fn leave_open(&self, key: usize) {
        self.is_open[key].store(true, Ordering::SeqCst);
    }
}
