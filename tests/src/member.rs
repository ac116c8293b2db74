//! One store with its log, started with any flags: for tests of what flags and calls do, on etcd-lite and on etcd alike.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ports::free_ports;
use crate::store::{Program, etcd_35};
use crate::tools::{Ran, run};
use crate::wait::wait_for;

/// Within which anything a test waits for has happened.
pub const SOON: Duration = Duration::from_secs(30);

/// A store of one member; ended when dropped.
pub struct Member {
    program: Program,
    process: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    peer_port: u16,
}

/// What an HTTP/1.1 server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers, as they came.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Member {
    /// A member that serves clients, with more flags; `{dir}` in them is a directory of its own.
    ///
    /// # Panics
    /// It does not serve.
    pub fn start(program: Program, flags: &[&str]) -> Self {
        let mut member = Self::prepare(program);
        member.launch(flags);
        member.wait_healthy();
        member
    }

    /// A member that is not started yet.
    ///
    /// # Panics
    /// There is no directory or port to be had.
    pub fn prepare(program: Program) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = free_ports(2);
        Self { program, process: None, dir, port: ports[0], peer_port: ports[1] }
    }

    /// The command line, to be completed.
    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.program.command();
        let dir = self.dir.path().display().to_string();
        let given = |name: &str| flags.iter().any(|flag| flag.starts_with(&format!("--{name}=")));
        let (client, peer) = (self.url(), self.peer_url());
        for (name, value) in [
            ("name", "m".to_owned()),
            ("data-dir", format!("{dir}/data")),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("m={peer}")),
        ] {
            if !given(name) && !given("config-file") {
                command.arg(format!("--{name}={value}"));
            }
        }
        command
            .args(flags.iter().map(|flag| flag.replace("{dir}", &dir)))
            .current_dir(&dir)
            .stdin(Stdio::null());
        command
    }

    /// Starts it, on the data it has. Its log goes to a file, see [`Member::log`].
    ///
    /// # Panics
    /// The program is not there.
    pub fn launch(&mut self, flags: &[&str]) {
        self.stop();
        let log = File::create(self.dir.path().join("log")).expect("a log");
        let mut command = self.command(flags);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Kills it, if it runs.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fails only if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// It does not run, or goes on.
    pub fn terminate(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it runs");
        let id = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
        kill(id, Signal::SIGTERM).expect("a signal");
        self.wait_ended()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// It goes on.
    pub fn wait_ended(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it was started");
        wait_for("it has ended", SOON, || process.try_wait().expect("wait").ok_or("it goes on".to_owned()))
    }

    /// Waits until it answers requests.
    pub fn wait_healthy(&self) {
        wait_for("it is healthy", SOON, || {
            self.etcdctl(&["endpoint", "health"]).result().map_err(|error| format!("{error}\n{}", self.log()))
        });
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where other members connect to.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What `{dir}` stands for.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until it has logged a text, and gives the line.
    pub fn wait_logged(&self, text: &str) -> String {
        wait_for(&format!("{text:?} is logged"), SOON, || {
            let log = self.log();
            log.lines().find(|line| line.contains(text)).map(str::to_owned).ok_or(log)
        })
    }

    /// Runs etcdctl 3.5 against it.
    pub fn etcdctl(&self, arguments: &[&str]) -> Ran {
        run(self.etcdctl_command().args(arguments))
    }

    /// etcdctl 3.5 for it, to be completed.
    pub fn etcdctl_command(&self) -> Command {
        let mut command = Command::new(etcd_35("etcdctl"));
        command.arg("--endpoints").arg(self.url()).current_dir(self.dir.path());
        command
    }

    /// As [`Member::etcdctl`], printing JSON.
    ///
    /// # Panics
    /// It failed.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.etcdctl(&[arguments, &["-w", "json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// The answer to a GET on the client port.
    pub fn get(&self, path: &str) -> Answer {
        http(self.port, "GET", path, &[], "")
    }

    /// What the JSON gateway answers.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        http(self.port, "POST", path, &[], body)
    }

    /// The value of a series on `/metrics`.
    ///
    /// # Panics
    /// It is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- log of {:?}\n{}",
                self.program,
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        self.stop();
    }
}

/// Asks a port of this machine.
///
/// # Panics
/// Nobody answers, or not in HTTP.
pub fn http(port: u16, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    let host =
        if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("asks");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
