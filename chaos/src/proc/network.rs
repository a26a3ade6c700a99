//! A network of its own for each machine of a run: a namespace with one address, joined to the others and to this
//! process by a bridge. What does not get through is decided in the machine's own firewall.
//!
//! **Invariant**: all names carry the number of a lock that this process holds, so two runs never meet, and what a
//! killed run has left is cleared away by the next one that gets its number.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use serde::Serialize;

/// Networks at once on one machine.
const NETWORKS_MAX: u8 = 64;

/// The tools that make them.
const TOOLS: [&str; 4] = ["ip", "tc", "nft", "nsenter"];

/// What does not get through between a machine and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Nothing gets through.
    Both,
    /// Nothing gets out.
    Out,
    /// Nothing comes in.
    In,
    /// So many packets of a thousand are lost, each way.
    Lose(u16),
    /// No UDP gets through.
    Udp,
}

/// Says what is missing here for such networks, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("making networks takes root".into());
    }
    let has = |tool: &str| {
        let paths = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        paths.iter().any(|folder| Path::new(folder).join(tool).exists())
    };
    if let Some(tool) = TOOLS.iter().find(|tool| !has(tool)) {
        return Some(format!("`{tool}` is missing; `make setup` installs it"));
    }
    Network::claim().err().map(|error| format!("{error:#}"))
}

/// Runs a tool with text on its standard input.
fn tool(arguments: &[&str], input: &str) -> Result<()> {
    let (name, rest) = arguments.split_first().context("no tool")?;
    let mut child = Command::new(name)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading its input says why by itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("`{}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

/// The networks of one run. They are gone when it is dropped.
#[derive(Debug)]
pub struct Network {
    number: u8,
    machines: u8,
    _lock: File,
}

impl Network {
    /// Makes the bridge of a run.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn claim() -> Result<Self> {
        for number in 0..NETWORKS_MAX {
            let path = std::env::temp_dir().join(format!("sonae-net-{number}.lock"));
            let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let network = Self { number, machines: 1, _lock: lock };
                network.clear();
                let (bridge, address) = (network.bridge(), format!("{}/24", network.here()));
                tool(&["ip", "link", "add", &bridge, "type", "bridge"], "")?;
                tool(&["ip", "address", "add", &address, "dev", &bridge], "")?;
                tool(&["ip", "link", "set", &bridge, "up"], "")?;
                return Ok(network);
            }
        }
        bail!("all {NETWORKS_MAX} networks are in use")
    }

    fn bridge(&self) -> String {
        format!("sonae{}", self.number)
    }

    fn address(&self, machine: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 83, self.number, machine)
    }

    /// The number of this network, for names that must not meet those of other runs.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// The address of this process in it.
    #[must_use]
    pub fn here(&self) -> IpAddr {
        self.address(1).into()
    }

    /// Adds a machine.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn add(&mut self) -> Result<Machine> {
        self.machines = self.machines.checked_add(1).context("too many machines")?;
        let (number, address) = (self.machines, self.address(self.machines));
        let (name, outer) =
            (format!("sonae-{}-{number}", self.number), format!("sonae{}n{number}", self.number));
        tool(&["ip", "netns", "add", &name], "")?;
        tool(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", "up", "netns", &name], "")?;
        tool(&["ip", "link", "set", &outer, "master", &self.bridge(), "up"], "")?;
        let whole = format!("{address}/24");
        for rest in [
            &["address", "add", &whole, "dev", "up"][..],
            &["link", "set", "dev", "up", "up"],
            &["link", "set", "dev", "lo", "up"],
        ] {
            tool(&[&["ip", "-n", &name][..], rest].concat(), "")?;
        }
        Ok(Machine { name, address: address.into() })
    }

    /// Takes away all that has this network's number, with the processes in it: a run that was killed left them.
    fn clear(&self) {
        let prefix = format!("sonae-{}-", self.number);
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if name.starts_with(&prefix) {
                let pids = Command::new("ip").args(["netns", "pids", &name]).output();
                let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                for pid in pids.unwrap_or_default().lines().filter_map(|line| line.parse().ok()) {
                    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                        // It may have ended meanwhile.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
                // What cannot be taken away shows when it is made again.
                let _ = tool(&["ip", "netns", "delete", &name], "");
            }
        }
        // The system takes its time to take away what reached into a namespace.
        let (bridge, ends) = (self.bridge(), format!("sonae{}n", self.number));
        let links = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        for name in links.filter_map(|entry| entry.file_name().into_string().ok()) {
            if name == bridge || name.starts_with(&ends) {
                let _ = tool(&["ip", "link", "delete", &name], "");
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A machine with a network of its own.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    /// Its address.
    pub address: IpAddr,
}

impl Machine {
    /// The command under which its programs run.
    #[must_use]
    pub fn under(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name)]
    }

    /// Blocks what it exchanges with an address, in place of what was blocked before; or nothing any more. When this
    /// returns, the next packet meets it.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn block(&self, other: SocketAddr, block: Option<Block>) -> Result<()> {
        let drop = match block {
            Some(Block::Lose(per_thousand)) => format!("numgen random mod 1000 < {per_thousand} drop"),
            _ => "drop".to_owned(),
        };
        let protocols = if block == Some(Block::Udp) { "udp" } else { "{ tcp, udp }" };
        let (ip, port) = (other.ip(), other.port());
        let rule = |end: &str, is_there: bool| match is_there {
            true => format!("meta l4proto {protocols} ip {end}addr {ip} th {end}port {port} {drop}"),
            false => String::new(),
        };
        let comes = rule("s", block.is_some_and(|block| block != Block::Out));
        let goes = rule("d", block.is_some_and(|block| block != Block::In));
        // Made first, so that there is something to take away; all of it is one step.
        let rules = format!(
            "table inet sonae\ndelete table inet sonae\ntable inet sonae {{\n\
             chain comes {{ type filter hook input priority 0; {comes}; }}\n\
             chain goes {{ type filter hook output priority 0; {goes}; }}\n}}\n"
        );
        let under = self.under();
        let mut arguments: Vec<&str> = under.iter().map(String::as_str).collect();
        arguments.extend(["nft", "-f", "-"]);
        tool(&arguments, &rules)
    }

    /// Lets at most so many kilobits a second out of it, or any number again.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn shape(&self, kilobits: Option<u32>) -> Result<()> {
        // There may be none to take away.
        let _ = tool(&["tc", "-n", &self.name, "qdisc", "delete", "dev", "up", "root"], "");
        let Some(kilobits) = kilobits else { return Ok(()) };
        let rate = format!("{kilobits}kbit");
        let of_tbf = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "1s"];
        tool(&[&["tc", "-n", &self.name, "qdisc", "add", "dev", "up"][..], &of_tbf].concat(), "")
    }

    /// Takes its address over from another machine, whose place it takes in the network.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn take_over(&mut self, from: &Self) -> Result<()> {
        tool(&["ip", "-n", &from.name, "address", "flush", "dev", "up"], "")?;
        let address = format!("{}/24", from.address);
        tool(&["ip", "-n", &self.name, "address", "add", &address, "dev", "up"], "")?;
        self.address = from.address;
        Ok(())
    }

    /// Forgets which machine has which address.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn forget_neighbours(&self) -> Result<()> {
        tool(&["ip", "-n", &self.name, "neighbour", "flush", "all"], "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn reach(from: &Machine, to: SocketAddr) -> bool {
        let (under, port) = (from.under(), to.port().to_string());
        let script = format!("exec 3<>/dev/tcp/{}/{port}", to.ip());
        let status = Command::new(&under[0])
            .args(&under[1..])
            .args(["timeout", "0.5", "bash", "-c", &script])
            .output();
        status.is_ok_and(|output| output.status.success())
    }

    /// Goal: a block meets what it names and nothing else, at once, and goes again; machines vanish with the run.
    /// Method: two machines, TCP from one to this process, each block.
    #[test]
    fn blocks_are_synchronous_and_precise() {
        if let Some(what) = missing() {
            println!("not verified: {what}");
            return;
        }
        let mut network = Network::claim().unwrap();
        let machine = network.add().unwrap();
        let listener = TcpListener::bind((network.here(), 0)).unwrap();
        let other = TcpListener::bind((network.here(), 0)).unwrap();
        let at = listener.local_addr().unwrap();
        for block in [Block::Both, Block::Out, Block::In, Block::Lose(999)] {
            machine.block(at, Some(block)).unwrap();
            assert!(!reach(&machine, at), "{block:?}");
            assert!(reach(&machine, other.local_addr().unwrap()), "{block:?} blocks too much");
            machine.block(at, None).unwrap();
            assert!(reach(&machine, at), "{block:?} stays");
        }
        machine.block(at, Some(Block::Udp)).unwrap();
        assert!(reach(&machine, at));
        machine.shape(Some(256)).unwrap();
        machine.shape(None).unwrap();
        drop(network);
        assert!(TcpStream::connect_timeout(&at, Duration::from_millis(200)).is_err());
        assert!(!Path::new("/run/netns").join(&machine.name).exists());
    }
}
