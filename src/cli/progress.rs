//! A progress line on stderr that is overwritten, for terminals.

use std::fmt::Write as _;
use std::io::Write as _;

/// Shows the current step.
pub(super) fn line(doing: &str) {
    write(&format!("\r\x1b[2K{doing}…"));
}

/// Shows the progress as a bar.
pub(super) fn bar(done: usize, of: usize, doing: &str) {
    let full = (done * BAR_WIDTH).checked_div(of).unwrap_or_default().min(BAR_WIDTH);
    let mut text =
        format!("\r\x1b[2K{}{} {done}/{of}", "█".repeat(full), "░".repeat(BAR_WIDTH - full));
    // Writing to a String does not fail; the line must fit a narrow terminal.
    let _ = write!(text, " {doing:.40}");
    write(&text);
}

/// Clears the line.
pub(super) fn clear() {
    write("\r\x1b[2K");
}

/// Columns of the bar.
const BAR_WIDTH: usize = 24;

fn write(text: &str) {
    let mut stderr = anstream::stderr();
    // Progress is optional, so errors are ignored.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
