//! Our verbs against those of programs that nobody here wrote, on a real device.

#![allow(unsafe_code, reason = "the unsafe tier and the ibverbs crate; each block carries its proof")]

#[path = "../common/mod.rs"]
mod common;
mod end;
mod ibverbs_crate;
mod pingpong;
mod plain_end;
mod rc_pingpong;
mod rping;
#[path = "../verbs/support.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod support;
mod ud_pingpong;
