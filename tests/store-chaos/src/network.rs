//! The members' network: a bridge in a namespace of the program's own, and a namespace for each member, joined by a veth pair; cut with nftables.
//!
//! All of it has no name on the host and is held by processes alone, so that nothing is left however the program ends.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use coracle_bench::processes::Process;

const DEADLINE: Duration = Duration::from_secs(10);
/// Where clients are.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 254);

/// Address of a member, counted from 0.
pub fn address(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 231, 0, 1 + member as u8)
}

/// Lays out the bridge in the network namespace that this program is in.
///
/// # Errors
/// The command that failed, with its words.
pub fn lay_out_hub() -> anyhow::Result<()> {
    run(&["ip", "link", "set", "lo", "up"])?;
    run(&["ip", "link", "add", "hub", "type", "bridge"])?;
    run(&["ip", "address", "add", &format!("{HUB}/24"), "dev", "hub"])?;
    run(&["ip", "link", "set", "hub", "up"])
}

/// A member's host: a network namespace, held by a process that does nothing.
pub struct Host {
    member: usize,
    holder: Process,
}

/// Who does not hear whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Neither do the other members hear the member nor it them.
    Peers,
    /// Nobody and nobody.
    All,
    /// The others do not hear it.
    Mute,
    /// It does not hear the others.
    Deaf,
    /// It and one other do not hear each other.
    From(usize),
}

impl Host {
    /// Makes the namespace and joins it to the bridge.
    ///
    /// # Errors
    /// The command that failed, with its words.
    pub fn new(member: usize, log: &Path) -> anyhow::Result<Self> {
        let hold = ["--net", "--", "sleep", "infinity"].map(str::to_owned);
        let holder = Process::start(Path::new("unshare"), &hold, log)?;
        let host = Self { member, holder };
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let deadline = Instant::now() + DEADLINE;
        while std::fs::read_link(host.namespace()).is_ok_and(|namespace| namespace == own) {
            ensure!(Instant::now() < deadline, "no network namespace within {DEADLINE:?}");
            std::thread::yield_now();
        }
        let (link, pid) = (format!("member{member}"), host.holder.id().to_string());
        run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        run(&["ip", "link", "set", &link, "master", "hub", "up"])?;
        host.run(&["ip", "link", "set", "lo", "up"])?;
        host.run(&["ip", "address", "add", &format!("{}/24", address(member)), "dev", "eth0"])?;
        host.run(&["ip", "link", "set", "eth0", "up"])?;
        host.rules(
            "table inet cut {\n\
             chain in { type filter hook input priority 0; }\n\
             chain out { type filter hook output priority 0; }\n}\n",
        )?;
        Ok(host)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Words to put before a command so that it runs on this host.
    pub fn enter(&self) -> [String; 3] {
        ["nsenter".into(), format!("--net={}", self.namespace()), "--".into()]
    }

    fn run(&self, command: &[&str]) -> anyhow::Result<()> {
        let enter = self.enter();
        run(&enter.iter().map(String::as_str).chain(command.iter().copied()).collect::<Vec<_>>())
    }

    /// Cuts the member off, on top of what is cut already.
    ///
    /// # Errors
    /// nft's words.
    pub fn cut(&self, cut: Cut, members: usize) -> anyhow::Result<()> {
        let peers = (0..members)
            .filter(|peer| *peer != self.member && !matches!(cut, Cut::From(other) if other != *peer));
        let mut rules = String::new();
        for peer in peers.map(address) {
            if cut != Cut::Mute {
                rules.push_str(&format!("add rule inet cut in ip saddr {peer} drop\n"));
            }
            if cut != Cut::Deaf {
                rules.push_str(&format!("add rule inet cut out ip daddr {peer} drop\n"));
            }
        }
        if cut == Cut::All {
            rules.push_str(&format!(
                "add rule inet cut in ip saddr {HUB} drop\nadd rule inet cut out ip daddr {HUB} drop\n"
            ));
        }
        self.rules(&rules)
    }

    /// Ends all cuts.
    ///
    /// # Errors
    /// nft's words.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.rules("flush table inet cut\n")
    }

    fn rules(&self, rules: &str) -> anyhow::Result<()> {
        let [program, arguments @ ..] = self.enter();
        let mut child = Command::new(program)
            .args(arguments)
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("nft")?;
        // A program that ended early says why itself.
        let _ = child.stdin.take().context("nft's input")?.write_all(rules.as_bytes());
        let output = child.wait_with_output().context("nft")?;
        ensure!(output.status.success(), "nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn run(command: &[&str]) -> anyhow::Result<()> {
    let [program, arguments @ ..] = command else { bail!("no command") };
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_string())?;
    ensure!(output.status.success(), "{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
