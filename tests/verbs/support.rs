//! What the tests of the verbs layer share.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once, PoisonError};

use zcmi::verbs::{ConnectionId, Context, Device, EventChannel};

use crate::common;
use crate::common::resources::Resources;

/// What this process has logged as an error.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The device under test.
pub(crate) struct Fixture {
    /// The open device.
    pub(crate) context: Arc<Context>,
    /// Its IP address.
    pub(crate) address: String,
}

/// Runs `test` on the device, and then shows that it left nothing behind. Skips, aloud, where there is no device.
pub(crate) fn with_device(test: impl FnOnce(&Fixture)) {
    let Some(address) = common::device_address() else { return };
    keep_errors();
    // Of a test that failed before.
    errors_logged();
    // librdmacm opens a device when it first needs it, and never closes it.
    drop(EventChannel::create().and_then(|channel| {
        let id = ConnectionId::create(&channel)?;
        id.bind(SocketAddr::new(address.parse().expect("an address"), 0))
    }));
    let baseline = Resources::settled();
    let device = Device::list().expect("devices").into_iter().next().expect("a device");
    let fixture = Fixture { context: device.open().expect("opens"), address };
    test(&fixture);
    drop(fixture);
    Resources::assert_back_at(&baseline);
    let errors = errors_logged();
    assert!(errors.is_empty(), "errors were logged: {errors:#?}");
}

/// What has been logged as an error since the last call. A destructor cannot tell its failure otherwise.
pub(crate) fn errors_logged() -> Vec<String> {
    std::mem::take(&mut *ERRORS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps what is logged as an error.
struct KeepErrors;

impl Write for KeepErrors {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        ERRORS.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn keep_errors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let builder = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR);
        builder.with_writer(|| KeepErrors).with_ansi(false).init();
    });
}
