//! A device of a test's own, to be taken down and removed while the device under test stays as it is.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zcmi::verbs::{Context, Device, PortState};

const NAME: &str = "rxe_spare";
const NETDEV: &str = "zspare0";
/// What has not happened for so long does not happen by itself.
const CALM: Duration = Duration::from_millis(300);
/// Bound of everything that the kernel is asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Soft-RoCE device over a netdev of its own, both gone on drop. Contexts of it are dropped before it: until then the
/// kernel waits with the removal.
pub(crate) struct SpareDevice(());

impl SpareDevice {
    /// Its IPv4 address, of a /24.
    pub(crate) const V4: &str = "203.0.113.1";
    /// Its IPv6 address, of a /64.
    pub(crate) const V6: &str = "2001:db8:5::1";

    /// Makes the device. `None`, said aloud, where that is not allowed; a panic where a device is required.
    pub(crate) fn create() -> Option<Self> {
        let spare = Self(());
        let made = tool("ip", &format!("link add {NETDEV} type dummy"))
            .and_then(|()| tool("ip", &format!("addr add {}/24 dev {NETDEV}", Self::V4)))
            .and_then(|()| tool("ip", &format!("addr add {}/64 dev {NETDEV} nodad", Self::V6)))
            .and_then(|()| tool("ip", &format!("link set {NETDEV} up")))
            .and_then(|()| tool("rdma", &format!("link add {NAME} type rxe netdev {NETDEV}")));
        if let Err(error) = made {
            let required = std::env::var("ZCMI_REQUIRE_RDMA").is_ok_and(|value| value == "1");
            assert!(!required, "ZCMI_REQUIRE_RDMA=1 and no device can be made: {error}");
            eprintln!("SKIPPED: no device can be made: {error}");
            return None;
        }
        spare.until("the device is ready", || {
            let Some(device) = Device::list().ok().and_then(|all| all.into_iter().find(|device| device.name() == NAME))
            else {
                return false;
            };
            let Ok(context) = device.open() else { return false };
            context.port(1).is_ok_and(|port| port.state == PortState::Active)
                && [Self::V4, Self::V6].iter().all(|ip| context.gid_for(address(ip)).is_ok())
        });
        Some(spare)
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Arc<Context> {
        Context::open(NAME).expect("the spare device opens")
    }

    /// Opens it, and reads what it has to tell of its making.
    pub(crate) fn open_quiet(&self) -> Arc<Context> {
        let context = self.open();
        let events = context.async_events();
        let begun = Instant::now();
        while events.wait(CALM).expect("events can be read").is_some() {
            assert!(begun.elapsed() < PATIENCE, "events without end");
        }
        context
    }

    /// Name of its netdev.
    pub(crate) fn netdev(&self) -> &'static str {
        NETDEV
    }

    /// Runs `ip` with these words.
    pub(crate) fn ip(&self, words: &str) {
        tool("ip", words).expect("ip");
    }

    /// Begins to remove the device; ends when the kernel has done it.
    pub(crate) fn begin_removal(&self) -> Removal {
        let mut command = Command::new("rdma");
        Removal(command.args(["link", "delete", NAME]).stdin(Stdio::null()).spawn().expect("iproute2"))
    }

    /// Waits until `is_so`.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for SpareDevice {
    fn drop(&mut self) {
        if Device::list().is_ok_and(|all| all.iter().any(|device| device.name() == NAME)) {
            report(tool("rdma", &format!("link delete {NAME}")));
        }
        if std::path::Path::new("/sys/class/net").join(NETDEV).exists() {
            report(tool("ip", &format!("link delete {NETDEV}")));
        }
    }
}

/// A removal under way.
pub(crate) struct Removal(Child);

impl Removal {
    /// Whether the kernel is still at it.
    pub(crate) fn is_waiting(&mut self) -> bool {
        self.0.try_wait().expect("the child is ours").is_none()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) {
        finish(&mut self.0).expect("the device is removed");
    }
}

/// Whether this kernel's rxe has something, known of two versions that were tried; `None` between them.
pub(crate) fn kernel_has(without: (u32, u32), with: (u32, u32)) -> Option<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut parts = release.split('.').map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= with { Some(true) } else { (version <= without).then_some(false) }
}

/// The IP address of `text`.
pub(crate) fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

fn report(outcome: Result<(), String>) {
    if let Err(error) = outcome {
        eprintln!("the spare device: {error}");
    }
}

fn tool(program: &str, words: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    let child = command.args(words.split(' ')).stdin(Stdio::null()).spawn();
    let outcome = child.map_err(|error| error.to_string()).and_then(|mut child| finish(&mut child));
    outcome.map_err(|error| format!("{program} {words}: {error}"))
}

/// Waits for a child, but not for ever: in the kernel it cannot even be killed.
fn finish(child: &mut Child) -> Result<(), String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    }
    let _ = child.kill();
    Err(format!("not after {PATIENCE:?}"))
}
