//! The steps of the README, executed on a fresh machine.

use super::image::static_program;
use super::service::renew;
use super::{PROJECT, deploy_path, text};
use crate::machine::Machine;
use crate::support::{Authority, files_below};

#[test]
fn the_steps_with_systemd_lead_to_a_passing_check() {
    let fresh = Fresh::with_the_project();
    let authority = Authority::new();
    renew(&fresh.machine, &authority);
    let mut steps = steps("## With systemd");
    // With a certificate from files: there is no CA.
    let other =
        commands(section("## With systemd").split_once("With your own certificate").unwrap().1);
    steps[2] = vec![other[0].clone()];
    steps[4] = vec![other[1].clone()];
    fresh.follow(&steps, &authority);
}

#[test]
fn the_steps_behind_nginx_lead_to_a_passing_check() {
    let fresh = Fresh::with_the_project();
    let authority = Authority::new();
    renew(&fresh.machine, &authority);
    fresh.machine.run("cp /etc/callback-edge/fullchain.pem /etc/nginx/auth.example.com.pem");
    fresh.machine.run("cp /etc/callback-edge/privkey.pem /etc/nginx/auth.example.com.key");
    fresh.follow(&steps("## Behind nginx"), &authority);
}

#[test]
fn the_steps_without_a_container_engine_lead_to_a_passing_check() {
    let fresh = Fresh::with_the_project();
    fresh.follow(&steps("### Without a container engine"), &Authority::new());
}

/// A fresh machine with the project, its static binary, a domain and a certificate.
struct Fresh {
    machine: Machine,
}

impl Fresh {
    fn with_the_project() -> Self {
        let binary = static_program();
        let machine = Machine::boot();
        machine.copy(&binary, &format!("/root/project/{STATIC}"), 0o755);
        for file in files_below(&deploy_path("")) {
            let name = file.strip_prefix(PROJECT).unwrap().display();
            machine.copy(&file, &format!("/root/project/{name}"), 0o644);
        }
        machine.run("echo 127.0.0.1 auth.example.com localhost >/etc/hosts");
        Self { machine }
    }

    /// Executes the steps; the last is a check.
    fn follow(&self, steps: &[Vec<String>], authority: &Authority) {
        assert!(steps.len() < 10, "too many steps");
        self.machine.write("/root/ca.pem", authority.pem(), 0o644);
        let (check, before) = steps.split_last().unwrap();
        for command in before.iter().flatten() {
            // A process in the background must not keep the pipe of the test open.
            let command = match command.strip_suffix(" &") {
                Some(command) => format!("{command} >/dev/null 2>&1 &"),
                None => command.clone(),
            };
            self.machine.run(&format!("cd /root/project; {command}"));
        }
        let [check] = &check[..] else { panic!("{check:?}") };
        assert!(check.contains("callback-edge check http"), "{check}");
        // There is no Nango, and the CA is one of the test.
        let check = check.replace(" check ", " check --no-follow --wait 20s --ca /root/ca.pem ");
        self.machine.run(&format!("cd /root/project; {check}"));
    }
}

const STATIC: &str = "target/x86_64-unknown-linux-gnu/dist/callback-edge";

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

/// The texts in backticks that are commands.
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
