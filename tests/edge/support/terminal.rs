//! What a person sees: the program on a terminal, and a picture of that.

use anstyle_svg::{Palette, Term, WIN10_CONSOLE};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitStatus, Stdio};

/// Runs it with a terminal of so many columns as its output. What it says has its escape sequences.
pub(crate) fn on_a_terminal(mut command: Command, columns: u16) -> (ExitStatus, String) {
    let (ours, theirs) = terminal(columns);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(theirs);
    let mut child = command.spawn().unwrap();
    // It holds the other end.
    drop(command);
    let mut said = Vec::new();
    // The end of a terminal is an error (EIO).
    let _ = (&ours).read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap().replace("\r\n", "\n");
    (child.wait().unwrap(), said)
}

/// A terminal of so many columns: our end and the program's.
pub(crate) fn terminal(columns: u16) -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()));
    let theirs = theirs.unwrap();
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).unwrap();
    (File::from(ours), theirs)
}

/// The picture (SVG) of a terminal on which this was typed and this was said. It has a ground of its
/// own, so that it reads alike on a light page and a dark one.
pub(crate) fn picture(typed: &str, said: &str) -> String {
    let term = Term::new()
        .palette(PALETTE)
        .fg_color(anstyle::RgbColor(0xd8, 0xde, 0xe9).into())
        .bg_color(anstyle::RgbColor(0x1c, 0x21, 0x28).into());
    let svg = term.render_svg(&format!("\u{1b}[1m$ {typed}\u{1b}[0m\n{}", said.trim_end()));
    // At 0.4 what is dimmed is hard to read.
    svg.replace(".dimmed { opacity: 0.4; }", ".dimmed { opacity: 0.65; }")
}

/// Colours that are told apart on that ground.
const PALETTE: Palette = {
    let mut colours = WIN10_CONSOLE.0;
    colours[1] = anstyle::RgbColor(0xff, 0x7b, 0x72);
    colours[2] = anstyle::RgbColor(0x56, 0xd3, 0x64);
    colours[3] = anstyle::RgbColor(0xe3, 0xb3, 0x41);
    Palette(colours)
};
