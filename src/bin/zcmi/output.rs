//! How things are printed: standard output has the data, in colour only where a person looks at it.

use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write, stdout};

use serde::Serialize;

use crate::Format;

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    is_coloured: bool,
}

/// The few colours there are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    /// Of headings.
    Bold,
    Green,
    Red,
    Yellow,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        // https://no-color.org: any value but the empty one.
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, is_coloured: stdout().is_terminal() && !is_refused }
    }

    /// Prints `text` as it is.
    pub(crate) fn print(&self, text: &str) {
        let mut output = stdout().lock();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Ok(()) => {}
            // Who read it has seen enough; the exit status tells the same all the same.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => {
                complain(format_args!("standard output: {error}"));
                std::process::exit(1);
            }
        }
    }

    /// Prints `value` as a line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.print(&(line + "\n")),
            Err(error) => self.print(&format!("{{\"error\":\"{error}\"}}\n")),
        }
    }

    /// `text` in `colour`, if there are colours.
    pub(crate) fn colour(&self, colour: Colour, text: &str) -> String {
        if !self.is_coloured {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Rows whose columns are aligned to the left, two spaces apart, behind `indent` spaces.
pub(crate) fn table(indent: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text += &format!("{:indent$}{}", "", cells.join("  "));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// An error in a line on standard error.
pub(crate) fn complain(error: impl fmt::Display) {
    // If that is closed, nobody wants to know.
    let _ = writeln!(std::io::stderr(), "zcmi: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_words() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let rows = [row(&["a", "long", "x"]), row(&["äöü", "b", ""]), row(&["last"])];
        assert_eq!(table(2, &rows), "  a     long  x\n  äöü   b\n  last\n");
        assert_eq!(table(2, &[]), "");
    }

    #[test]
    fn without_colours_text_is_left_alone() {
        let mut output = Output { format: Format::Text, is_coloured: false };
        assert_eq!(output.colour(Colour::Red, "x"), "x");
        output.is_coloured = true;
        assert_eq!(output.colour(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}
