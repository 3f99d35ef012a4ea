//! What the command prints, exactly: a field more, less or of another type is an error.

#![allow(dead_code, reason = "the types are what is checked")]

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Info {
    pub(crate) versions: Versions,
    pub(crate) transports: Vec<Transport>,
    pub(crate) devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    pub(crate) zcmi: String,
    pub(crate) kernel: Option<String>,
    pub(crate) rdma_core: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transport {
    pub(crate) name: String,
    pub(crate) available: bool,
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) node_type: String,
    pub(crate) guid: Option<String>,
    pub(crate) file: String,
    pub(crate) firmware: Option<String>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) limits: Option<Limits>,
    pub(crate) ports: Vec<Port>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capabilities {
    pub(crate) memory_windows: bool,
    pub(crate) on_demand_paging: bool,
    pub(crate) atomics: String,
    pub(crate) max_inline: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) queue_pairs: u32,
    pub(crate) requests_per_queue: u32,
    pub(crate) segments: u32,
    pub(crate) completion_queues: u32,
    pub(crate) completions_per_queue: u32,
    pub(crate) shared_receive_queues: u32,
    pub(crate) memory_regions: u32,
    pub(crate) memory_region_bytes: u64,
    pub(crate) memory_windows: u32,
    pub(crate) reads_as_initiator: u8,
    pub(crate) reads_as_target: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    pub(crate) port: u8,
    pub(crate) state: String,
    pub(crate) physical_state: String,
    pub(crate) link_layer: String,
    pub(crate) active_mtu: Option<u32>,
    pub(crate) max_mtu: Option<u32>,
    pub(crate) rate_megabits: u64,
    pub(crate) max_request_bytes: u32,
    pub(crate) gids: Vec<Gid>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gid {
    pub(crate) index: u32,
    pub(crate) gid: String,
    pub(crate) kind: String,
    pub(crate) netdev: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) zcmi: String,
    pub(crate) ok: bool,
    pub(crate) problems: usize,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finding {
    pub(crate) check: String,
    pub(crate) level: Level,
    pub(crate) what: String,
    pub(crate) why: Option<String>,
    pub(crate) fix: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Notice,
    Unknown,
    Problem,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Way {
    pub(crate) zcmi: String,
    pub(crate) address: String,
    pub(crate) ok: bool,
    pub(crate) transport: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) passed_over: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) step: String,
    pub(crate) ok: bool,
    pub(crate) microseconds: u64,
    pub(crate) detail: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Event {
    Listening { address: String },
    Served { peer: String, transport: String, error: Option<String> },
}
