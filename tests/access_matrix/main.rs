//! Grants on a real device: who may do what to which bytes, and how a grant ends.

#[path = "../common/mod.rs"]
mod common;

mod case;
mod holder;
mod matrix;
mod matrix_device;
mod owner;
mod plain;
