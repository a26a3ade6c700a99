//! Standard output: one place, so that a closed pipe ends a command quietly.

use std::io::Write;

/// Prints a line. A reader that has gone needs no more of it.
pub(super) fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
