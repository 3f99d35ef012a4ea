//! The control side of an established connection.

use super::endpoint::End;
use crate::Error;
use crate::transport::Link;

pub(crate) struct SimLink {
    end: End,
}

impl SimLink {
    pub(super) fn new(end: End) -> Self {
        Self { end }
    }
}

impl Link for SimLink {
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static) {
        self.end.world.with(|state| state.observe(self.end.id, Box::new(lost)));
    }

    fn disconnect(&self) {
        self.end.world.with(|state| state.disconnect(self.end.id));
    }
}
