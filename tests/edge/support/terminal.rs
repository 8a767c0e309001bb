//! The program on a terminal, and pictures of it.

use anstyle_svg::{Palette, Term, WIN10_CONSOLE};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitStatus, Stdio};

/// Runs a command on a terminal with this many columns. The output contains the escape sequences.
pub(crate) fn on_a_terminal(mut command: Command, columns: u16) -> (ExitStatus, String) {
    let (controller, user) = terminal(columns);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(user);
    let mut child = command.spawn().unwrap();
    // It owns the other end.
    drop(command);
    let mut output = Vec::new();
    // The end of a terminal is an error (EIO).
    let _ = (&controller).read_to_end(&mut output);
    let output = String::from_utf8(output).unwrap().replace("\r\n", "\n");
    (child.wait().unwrap(), output)
}

/// A pseudoterminal with this many columns: the controller's end and the program's.
pub(crate) fn terminal(columns: u16) -> (File, File) {
    // No child inherits it: it would keep the terminal open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let user = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()));
    let user = user.unwrap();
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&user, size).unwrap();
    (File::from(controller), user)
}

/// The picture (SVG) of a terminal with a command and its output. It has its own background, so that
/// it is readable on light and dark pages.
pub(crate) fn picture(command: &str, output: &str) -> String {
    let term = Term::new()
        .palette(PALETTE)
        .fg_color(anstyle::RgbColor(0xd8, 0xde, 0xe9).into())
        .bg_color(anstyle::RgbColor(0x1c, 0x21, 0x28).into());
    let svg = term.render_svg(&format!("\u{1b}[1m$ {command}\u{1b}[0m\n{}", output.trim_end()));
    // Dimmed text with an opacity of 0.4 is hard to read.
    svg.replace(".dimmed { opacity: 0.4; }", ".dimmed { opacity: 0.65; }")
}

/// Colours that are distinguishable on that background.
const PALETTE: Palette = {
    let mut colours = WIN10_CONSOLE.0;
    colours[1] = anstyle::RgbColor(0xff, 0x7b, 0x72);
    colours[2] = anstyle::RgbColor(0x56, 0xd3, 0x64);
    colours[3] = anstyle::RgbColor(0xe3, 0xb3, 0x41);
    Palette(colours)
};
