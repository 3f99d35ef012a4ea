//! Boots real machines and looks at what `run` promises. Everything is in one program, so that one
//! lock keeps the machines apart.

mod command;
mod machines;
mod support;
