//! The counters that devices keep themselves, as the kernel shows them below `/sys/class/infiniband`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// So many devices, ports of each and counters of each port are looked at: what is there may be anything.
const MOST_DEVICES: usize = 32;
const MOST_PORTS: usize = 8;
const MOST_COUNTERS: usize = 128;
/// Characters of a name.
const LONGEST_NAME: usize = 64;
/// Bytes of a file that are read: a number and a line's end.
const LONGEST: u64 = 32;

/// One counter of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceCounter {
    pub(crate) device: String,
    pub(crate) port: String,
    pub(crate) name: String,
    pub(crate) value: u64,
}

/// All counters of all devices; none where there are no devices. What cannot be read is passed over.
pub(crate) fn read() -> Vec<DeviceCounter> {
    read_below(Path::new("/sys/class/infiniband"))
}

fn read_below(root: &Path) -> Vec<DeviceCounter> {
    let mut counters = Vec::new();
    for device in names(root, MOST_DEVICES) {
        let ports = root.join(&device).join("ports");
        for port in names(&ports, MOST_PORTS) {
            for kind in ["counters", "hw_counters"] {
                let folder = ports.join(&port).join(kind);
                for name in names(&folder, MOST_COUNTERS) {
                    // How long the kernel keeps what it has read is no counter.
                    let value =
                        Some(&name).filter(|name| *name != "lifespan").and_then(|name| number(&folder.join(name)));
                    counters.extend(value.map(|value| {
                        let (device, port) = (device.clone(), port.clone());
                        DeviceCounter { device, port, name, value }
                    }));
                }
            }
        }
    }
    counters
}

/// What a folder has, in order, but for names that nobody would give a device, a port or a counter.
fn names(folder: &Path, most: usize) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_plain = |name: &String| {
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
        name.len() <= LONGEST_NAME && name.chars().all(plain) && !name.starts_with('.')
    };
    // As many again may be none.
    let found = entries.take(4 * most).flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = found.filter(is_plain).collect();
    found.sort_unstable();
    found.truncate(most);
    found
}

fn number(path: &Path) -> Option<u64> {
    // What is no file may never end to be read.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_number_is_read_and_all_else_is_passed_over() {
        let root = std::env::temp_dir().join(format!("zcmi-device-counters-{}", std::process::id()));
        let folder = |kind: &str| root.join("rxe0/ports/1").join(kind);
        for kind in ["counters", "hw_counters"] {
            std::fs::create_dir_all(folder(kind)).expect("a folder");
        }
        let write = |kind: &str, name: &str, text: &str| std::fs::write(folder(kind).join(name), text).expect("a file");
        write("counters", "port_rcv_data", "18446744073709551615\n");
        write("hw_counters", "sent_pkts", "7\n");
        write("hw_counters", "lifespan", "10\n");
        write("hw_counters", "text", "N/A\n");
        write("hw_counters", "negative", "-1\n");
        write("hw_counters", "endless", &"1".repeat(1 << 20));
        write("hw_counters", "a name\nof two lines", "1\n");
        std::fs::create_dir(folder("hw_counters").join("folder")).expect("a folder");
        std::os::unix::fs::symlink("nowhere", folder("hw_counters").join("dangling")).expect("a link");
        std::os::unix::fs::symlink("/dev/zero", folder("hw_counters").join("zero")).expect("a link");
        for number in 0..1000 {
            write("counters", &format!("x{number:04}"), "1");
        }
        let read = read_below(&root);
        std::fs::remove_dir_all(&root).expect("it is ours");
        let of = |name: &str| read.iter().find(|counter| counter.name == name).map(|counter| counter.value);
        assert_eq!(of("sent_pkts"), Some(7));
        for name in ["lifespan", "text", "negative", "endless", "folder", "dangling", "zero"] {
            assert_eq!(of(name), None, "{name}");
        }
        assert!(read.iter().all(|counter| counter.device == "rxe0" && counter.port == "1"));
        assert!(read.iter().filter(|counter| counter.name.starts_with('x')).count() <= MOST_COUNTERS);
        assert!(read_below(Path::new("/nowhere")).is_empty());
    }
}
