//! `key_value`: the table, its checks, and the program.

mod book;
mod program;
mod slots;
mod tables;
