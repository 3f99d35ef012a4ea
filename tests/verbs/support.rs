//! What the tests of the verbs layer share.

use std::net::SocketAddr;
use std::sync::Arc;

use zcmi::verbs::{ConnectionId, Context, Device, EventChannel};

use crate::common;
use crate::common::resources::Resources;

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
}
