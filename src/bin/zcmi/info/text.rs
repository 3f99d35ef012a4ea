//! `zcmi info` for people.

use super::devices::{Capabilities, Device, Limits, Port};
use super::{Info, Transport};
use crate::output::{Colour, Output, table};

pub(super) fn render(info: &Info, output: Output) -> String {
    let heading = |text: &str| format!("{}\n", output.colour(Colour::Bold, text));
    let versions = &info.versions;
    let unknown = |version: &Option<String>| version.clone().unwrap_or_else(|| "not found".to_owned());
    let mut text = heading("versions");
    text += &pairs(
        2,
        &[
            ("zcmi", versions.zcmi.to_owned()),
            ("kernel", unknown(&versions.kernel)),
            ("rdma-core", unknown(&versions.rdma_core)),
        ],
    );
    text += &heading("transports");
    text += &table(2, &info.transports.iter().map(transport).collect::<Vec<_>>());
    if info.devices.is_empty() {
        text += &heading("devices");
        text += "  none; `zcmi doctor` tells how to get one\n";
    }
    for device in &info.devices {
        text += &heading(&format!("device {}", device.name));
        text += &of_device(device);
    }
    text
}

fn transport(transport: &Transport) -> Vec<String> {
    let reason = transport.reason.as_deref().unwrap_or_default();
    let available = if transport.available { "yes" } else { "no:" };
    vec![transport.name.to_owned(), format!("{available} {reason}").trim_end().to_owned()]
}

fn of_device(device: &Device) -> String {
    let mut rows = vec![("type", device.node_type.clone()), ("file", device.file.clone())];
    rows.extend(device.guid.clone().map(|guid| ("GUID", guid)));
    rows.extend(device.firmware.clone().map(|firmware| ("firmware", firmware)));
    rows.extend(device.error.clone().map(|error| ("error", error)));
    rows.extend(device.capabilities.as_ref().map(|capabilities| ("can", of_capabilities(capabilities))));
    let mut text = pairs(2, &rows);
    if let Some(limits) = &device.limits {
        text += &format!("  limits\n{}", of_limits(limits));
    }
    for port in &device.ports {
        text += &of_port(port);
    }
    text
}

fn of_capabilities(capabilities: &Capabilities) -> String {
    let is = |there| if there { "yes" } else { "no" };
    let inline = capabilities.max_inline.map_or("unknown".to_owned(), |bytes| format!("{bytes} B"));
    format!(
        "memory windows {}, on-demand paging {}, atomics {}, inline {inline}",
        is(capabilities.memory_windows),
        is(capabilities.on_demand_paging),
        capabilities.atomics,
    )
}

fn of_limits(limits: &Limits) -> String {
    pairs(
        4,
        &[
            ("queue pairs", limits.queue_pairs.to_string()),
            ("requests per queue", limits.requests_per_queue.to_string()),
            ("segments per request", limits.segments.to_string()),
            ("completion queues", limits.completion_queues.to_string()),
            ("completions per queue", limits.completions_per_queue.to_string()),
            ("shared receive queues", limits.shared_receive_queues.to_string()),
            ("memory regions", limits.memory_regions.to_string()),
            ("bytes per region", limits.memory_region_bytes.to_string()),
            ("memory windows", limits.memory_windows.to_string()),
            ("reads as initiator", limits.reads_as_initiator.to_string()),
            ("reads as target", limits.reads_as_target.to_string()),
        ],
    )
}

fn of_port(port: &Port) -> String {
    let mtu = |bytes: Option<u32>| bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    let mut text = format!("  port {}\n", port.port);
    text += &pairs(
        4,
        &[
            ("state", format!("{}, {}", port.state, port.physical_state)),
            ("link", format!("{}, {} Mb/s", port.link_layer, port.rate_megabits)),
            ("MTU", format!("{} of at most {}", mtu(port.active_mtu), mtu(port.max_mtu))),
            ("bytes per request", port.max_request_bytes.to_string()),
        ],
    );
    let gids = port.gids.iter().map(|gid| {
        let netdev = gid.netdev.clone().unwrap_or_default();
        vec![format!("GID {}", gid.index), gid.gid.clone(), gid.kind.clone(), netdev]
    });
    text + &table(4, &gids.collect::<Vec<_>>())
}

fn pairs(indent: usize, rows: &[(&str, String)]) -> String {
    table(indent, &rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect::<Vec<_>>())
}
