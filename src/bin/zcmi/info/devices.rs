//! Devices as `zcmi info` shows them.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) node_type: String,
    pub(super) guid: Option<String>,
    /// Its device file.
    pub(super) file: String,
    pub(super) firmware: Option<String>,
    /// What zcmi uses; none if the device cannot be opened.
    pub(super) capabilities: Option<Capabilities>,
    pub(super) limits: Option<Limits>,
    pub(super) ports: Vec<Port>,
    /// Why it cannot be asked.
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Capabilities {
    /// Memory windows of type 2, which give each connection a key of its own.
    pub(super) memory_windows: bool,
    pub(super) on_demand_paging: bool,
    /// `none`, `device` or `global`.
    pub(super) atomics: String,
    /// Bytes that a request can carry inline, as far as was tried; none if it cannot be found out.
    pub(super) max_inline: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Limits {
    pub(super) queue_pairs: u32,
    pub(super) requests_per_queue: u32,
    pub(super) segments: u32,
    pub(super) completion_queues: u32,
    pub(super) completions_per_queue: u32,
    pub(super) shared_receive_queues: u32,
    pub(super) memory_regions: u32,
    pub(super) memory_region_bytes: u64,
    pub(super) memory_windows: u32,
    pub(super) reads_as_initiator: u8,
    pub(super) reads_as_target: u8,
}

#[derive(Debug, Serialize)]
pub(super) struct Port {
    pub(super) port: u8,
    pub(super) state: String,
    pub(super) physical_state: String,
    pub(super) link_layer: String,
    /// Bytes; none if the device says a value that this version does not know.
    pub(super) active_mtu: Option<u32>,
    pub(super) max_mtu: Option<u32>,
    /// 0 if it is not known.
    pub(super) rate_megabits: u64,
    pub(super) max_request_bytes: u32,
    pub(super) gids: Vec<Gid>,
}

#[derive(Debug, Serialize)]
pub(super) struct Gid {
    pub(super) index: u32,
    pub(super) gid: String,
    pub(super) kind: String,
    pub(super) netdev: Option<String>,
}

/// All devices, or why there can be none.
#[cfg(not(feature = "verbs"))]
pub(super) fn all(_: &crate::host::Host) -> Result<Vec<Device>, String> {
    Err("this zcmi was built without the feature verbs".to_owned())
}

#[cfg(feature = "verbs")]
pub(super) use with_verbs::all;

#[cfg(feature = "verbs")]
mod with_verbs {
    use std::sync::Arc;

    use zcmi::verbs::{
        self, AtomicCapability, CompletionQueue, Context, DeviceAttributes, DeviceCapabilities, GidEntry, LinkLayer,
        NodeType, OnDemandPagingCapabilities, ProtectionDomain, QueuePair, QueuePairCapabilities,
    };

    use super::{Capabilities, Device, Gid, Limits, Port};
    use crate::host::{Host, Libraries};

    pub(in crate::info) fn all(host: &Host) -> Result<Vec<Device>, String> {
        match verbs::Device::list() {
            Ok(devices) => Ok(devices.iter().map(|device| Device::of(host, device)).collect()),
            // Where the kernel has nothing of RDMA, libibverbs answers the same.
            Err(error) if error.is_not_installed() && Libraries::of(host).ibverbs.is_some() => Ok(Vec::new()),
            Err(error) if error.is_not_installed() => Err("libibverbs is not installed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    impl Device {
        fn of(host: &Host, device: &verbs::Device) -> Self {
            let mut found = Self {
                name: device.name().to_owned(),
                node_type: node_type(device.node_type()),
                guid: device.guid().map(|guid| guid.to_string()),
                file: device.path().display().to_string(),
                firmware: None,
                capabilities: None,
                limits: None,
                ports: Vec::new(),
                error: None,
            };
            // libibverbs does not tell why it cannot open it: it looks elsewhere, and finds nothing there.
            found.error = match (host.open)(&host.path(device.path())) {
                Ok(()) => found.ask(device).err().map(|error| error.to_string()),
                Err(error) => Some(format!("{}: {error}", found.file)),
            };
            found
        }

        fn ask(&mut self, device: &verbs::Device) -> verbs::Result<()> {
            let context = device.open()?;
            let attributes = context.attributes()?;
            self.firmware = Some(attributes.firmware_version.clone()).filter(|version| !version.is_empty());
            self.capabilities = Some(Capabilities::of(&attributes, &context));
            self.limits = Some(Limits::of(&attributes));
            let gids = context.gid_table()?;
            self.ports = (1..=attributes.ports)
                .map(|port| {
                    let gids = gids.entries().iter().filter(|entry| entry.port == port).map(Gid::of).collect();
                    Port::of(port, &context.port(port)?, gids)
                })
                .collect::<verbs::Result<_>>()?;
            Ok(())
        }
    }

    impl Capabilities {
        fn of(attributes: &DeviceAttributes, context: &Arc<Context>) -> Self {
            let has = |capability| attributes.capabilities.contains(capability);
            let paging = attributes.extended.as_ref().map(|extended| extended.on_demand_paging.general);
            Self {
                memory_windows: has(DeviceCapabilities::MEMORY_WINDOW_TYPE_2A)
                    || has(DeviceCapabilities::MEMORY_WINDOW_TYPE_2B),
                on_demand_paging: paging.is_some_and(|kinds| kinds.contains(OnDemandPagingCapabilities::EXPLICIT)),
                atomics: match attributes.atomics {
                    AtomicCapability::Device => "device".to_owned(),
                    AtomicCapability::Global => "global".to_owned(),
                    AtomicCapability::None => "none".to_owned(),
                    other => format!("{other:?}").to_lowercase(),
                },
                max_inline: max_inline(context).ok(),
            }
        }
    }

    /// No attribute tells: the most that a queue pair is made with.
    fn max_inline(context: &Arc<Context>) -> verbs::Result<u32> {
        let domain = ProtectionDomain::allocate(context)?;
        let completions = CompletionQueue::create(context, 4)?;
        for inline in [4096, 2048, 1024, 512, 256, 128, 64, 32] {
            let sizes = QueuePairCapabilities { inline, receives: 1, segments: 1, sends: 1 };
            let given = QueuePair::builder(&domain, &completions).capabilities(sizes).create()?.capabilities();
            if given.inline > 0 {
                return Ok(given.inline);
            }
        }
        Ok(0)
    }

    impl Limits {
        fn of(attributes: &DeviceAttributes) -> Self {
            Self {
                queue_pairs: attributes.max_queue_pairs,
                requests_per_queue: attributes.max_queue_pair_requests,
                segments: attributes.max_segments,
                completion_queues: attributes.max_completion_queues,
                completions_per_queue: attributes.max_completions,
                shared_receive_queues: attributes.max_shared_receive_queues,
                memory_regions: attributes.max_memory_regions,
                memory_region_bytes: attributes.max_memory_region_size,
                memory_windows: attributes.max_memory_windows,
                reads_as_initiator: attributes.max_reads_as_initiator,
                reads_as_target: attributes.max_reads_as_target,
            }
        }
    }

    impl Port {
        fn of(port: u8, attributes: &verbs::PortAttributes, gids: Vec<Gid>) -> verbs::Result<Self> {
            Ok(Self {
                port,
                state: words(attributes.state),
                physical_state: words(attributes.physical_state),
                link_layer: match attributes.link_layer {
                    LinkLayer::InfiniBand => "InfiniBand".to_owned(),
                    LinkLayer::Ethernet => "Ethernet".to_owned(),
                    other => words(other),
                },
                active_mtu: attributes.active_mtu.bytes(),
                max_mtu: attributes.max_mtu.bytes(),
                rate_megabits: attributes.rate_megabits(),
                max_request_bytes: attributes.max_message_size,
                gids,
            })
        }
    }

    impl Gid {
        fn of(entry: &GidEntry) -> Self {
            Self {
                index: entry.index,
                gid: entry.gid.to_string(),
                kind: entry.kind.to_string(),
                netdev: entry.netdev_name.clone().or_else(|| Some(format!("#{}", entry.netdev?))),
            }
        }
    }

    fn node_type(kind: NodeType) -> String {
        words(kind)
    }

    /// The name of a value in small letters, its words apart.
    fn words(value: impl std::fmt::Debug) -> String {
        let mut text = String::new();
        for letter in format!("{value:?}").chars() {
            if letter.is_uppercase() && text.chars().last().is_some_and(char::is_lowercase) {
                text.push(' ');
            }
            text.extend(letter.to_lowercase());
        }
        text
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use zcmi::verbs::{PhysicalState, PortState};

        #[test]
        fn names_become_words() {
            assert_eq!(words(NodeType::ChannelAdapter), "channel adapter");
            assert_eq!(words(PortState::Active), "active");
            assert_eq!(words(PhysicalState::LinkUp), "link up");
            assert_eq!(words(NodeType::Other(7)), "other(7)");
        }
    }
}
