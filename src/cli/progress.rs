//! One line on stderr that is written over and over, for who watches a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

/// Says what is being done.
pub(super) fn line(doing: &str) {
    write(&format!("\r\x1b[2K{doing}…"));
}

/// Says how far it got, as a bar.
pub(super) fn bar(done: usize, of: usize, doing: &str) {
    let full = (done * BAR).checked_div(of).unwrap_or_default().min(BAR);
    let mut text = format!("\r\x1b[2K{}{} {done}/{of}", "█".repeat(full), "░".repeat(BAR - full));
    // Writing to a String does not fail; no line may be longer than a narrow terminal.
    let _ = write!(text, " {doing:.40}");
    write(&text);
}

/// Leaves the line empty.
pub(super) fn clear() {
    write("\r\x1b[2K");
}

/// Columns of the bar.
const BAR: usize = 24;

fn write(text: &str) {
    let mut stderr = anstream::stderr();
    // Nobody is lost when it cannot be written.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
