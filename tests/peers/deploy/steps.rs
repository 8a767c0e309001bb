//! The steps of the README, followed on a fresh machine.

use super::image::static_program;
use super::service::renew;
use super::{PROJECT, place, text};
use crate::machine::Machine;
use crate::support::{Authority, files_below};

#[test]
fn whoever_follows_the_readme_with_systemd_passes_the_check() {
    let new = Newcomer::with_the_project();
    let authority = Authority::new();
    renew(&new.machine, &authority);
    let mut steps = steps("## With systemd");
    // With a certificate of one's own: nobody is there to order one from.
    let other =
        commands(section("## With systemd").split_once("With your own certificate").unwrap().1);
    steps[2] = vec![other[0].clone()];
    steps[4] = vec![other[1].clone()];
    new.follow(&steps, &authority);
}

#[test]
fn whoever_follows_the_readme_behind_nginx_passes_the_check() {
    let new = Newcomer::with_the_project();
    let authority = Authority::new();
    renew(&new.machine, &authority);
    new.machine.run("cp /etc/callback-edge/fullchain.pem /etc/nginx/auth.example.com.pem");
    new.machine.run("cp /etc/callback-edge/privkey.pem /etc/nginx/auth.example.com.key");
    new.follow(&steps("## Behind nginx"), &authority);
}

#[test]
fn whoever_follows_the_readme_without_an_engine_passes_the_check() {
    let new = Newcomer::with_the_project();
    new.follow(&steps("### Without a container engine"), &Authority::new());
}

/// Somebody with a fresh machine, the project, and its static binary; what is theirs, a domain and
/// a certificate, is there.
struct Newcomer {
    machine: Machine,
}

impl Newcomer {
    fn with_the_project() -> Self {
        let binary = static_program();
        let machine = Machine::boot();
        machine.copy(&binary, &format!("/root/project/{STATIC}"), 0o755);
        for file in files_below(&place("")) {
            let name = file.strip_prefix(PROJECT).unwrap().display();
            machine.copy(&file, &format!("/root/project/{name}"), 0o644);
        }
        machine.run("echo 127.0.0.1 auth.example.com localhost >/etc/hosts");
        Self { machine }
    }

    /// Does what the steps say; the last is a check.
    fn follow(&self, steps: &[Vec<String>], authority: &Authority) {
        assert!(steps.len() < 10, "too many steps");
        self.machine.write("/root/ca.pem", authority.pem(), 0o644);
        let (check, before) = steps.split_last().unwrap();
        for command in before.iter().flatten() {
            // What stays in the background would keep the test listening to it.
            let command = match command.strip_suffix(" &") {
                Some(command) => format!("{command} >/dev/null 2>&1 &"),
                None => command.clone(),
            };
            self.machine.run(&format!("cd /root/project; {command}"));
        }
        let [check] = &check[..] else { panic!("{check:?}") };
        assert!(check.contains("callback-edge check http"), "{check}");
        // Nango is not there, and the authority is nobody's.
        let check = check.replace(" check ", " check --no-follow --wait 20s --ca /root/ca.pem ");
        self.machine.run(&format!("cd /root/project; {check}"));
    }
}

const STATIC: &str = "target/x86_64-unknown-linux-gnu/release/callback-edge";

fn section(title: &str) -> String {
    let readme = text("README.md");
    let (_, rest) = readme.split_once(&format!("\n{title}\n")).unwrap();
    rest.split("\n#").next().unwrap().to_owned()
}

/// The commands of each step of a section.
fn steps(title: &str) -> Vec<Vec<String>> {
    let section = section(title);
    let mut steps: Vec<String> = vec![];
    for line in section.lines() {
        if line.starts_with(&format!("{}. ", steps.len() + 1)) {
            steps.push(line.to_owned());
        } else if let (Some(step), true) = (steps.last_mut(), line.starts_with("   ")) {
            step.push_str(line);
        } else if !steps.is_empty() {
            break;
        }
    }
    steps.iter().map(|step| commands(step)).collect()
}

/// What stands in backticks and begins as a command does.
fn commands(text: &str) -> Vec<String> {
    let programs =
        ["install", "callback-edge", "root/callback-edge", "systemctl", "nginx", "chroot"];
    let quoted = text.split('`').skip(1).step_by(2);
    let commands = quoted.filter(|quoted| {
        let mut words = quoted.split(' ').skip_while(|word| word.starts_with("CALLBACK_EDGE_"));
        let program = words.next().unwrap_or_default();
        programs.contains(&program) && words.next().is_some()
    });
    commands.map(ToOwned::to_owned).collect()
}
