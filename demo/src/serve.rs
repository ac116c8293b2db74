//! The HTTP server: says who it is, and misbehaves on request (health, start delay, memory, CPU, exit code).

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::http::{self, Request};
use crate::signals;

const CONNECTIONS_MAX: usize = 512;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

struct State {
    healthy: AtomicBool,
    ready: AtomicBool,
    connections: AtomicUsize,
    memory: Mutex<Vec<u8>>,
}

static STATE: State = State {
    healthy: AtomicBool::new(true),
    ready: AtomicBool::new(true),
    connections: AtomicUsize::new(0),
    memory: Mutex::new(Vec::new()),
};

/// Serves until SIGTERM or SIGINT; the result is the process's exit code.
pub fn run() -> i32 {
    let blocked = signals::block();
    let port = match setting("PORT", 8080_u16) {
        Ok(port) => port,
        Err(error) => return fail(&error),
    };
    let delay = match setting("START_DELAY", 0.0_f64) {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Duration::from_secs_f64(seconds),
        Ok(seconds) => return fail(&format!("START_DELAY={seconds}: must be seconds from 0 to 86400")),
        Err(error) => return fail(&error),
    };
    std::thread::spawn(move || {
        if !delay.is_zero() {
            log(&format!("starting, will listen in {:.1} s", delay.as_secs_f64()));
            std::thread::sleep(delay);
        }
        let listener = match TcpListener::bind(("0.0.0.0", port)) {
            Ok(listener) => listener,
            Err(error) => std::process::exit(fail(&format!("cannot listen on port {port}: {error}"))),
        };
        log(&format!("{} listening on port {port}", host_name()));
        for stream in listener.incoming().flatten() {
            if STATE.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                STATE.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            std::thread::spawn(move || {
                connection(stream);
                STATE.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    let signal = blocked.wait_for_end();
    log(&format!("signal {signal}, stopping"));
    // Requests already being answered get a moment to finish.
    std::thread::sleep(Duration::from_millis(50));
    0
}

fn fail(message: &str) -> i32 {
    eprintln!("coracle-demo serve: {message}");
    1
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}={text}: not a valid value")),
        Err(_) => Ok(default),
    }
}

/// The host name as the kernel knows it.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| std::env::var("HOSTNAME").unwrap_or_default(), |name| name.trim().to_owned())
}

fn log(message: &str) {
    let mut out = std::io::stdout().lock();
    // A closed log pipe must not end the server.
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
}

fn connection(mut stream: TcpStream) {
    let peer = stream.peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(IDLE_TIMEOUT));
    let _ = stream.set_write_timeout(Some(IDLE_TIMEOUT));
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    while let Ok(Some(request)) = http::read_request(&mut reader) {
        let (status, body) = respond(&request, &peer);
        log(&format!("{peer} {} {} {status}", request.method, request.target));
        if http::write_response(&mut stream, status, &body, request.keep_alive).is_err()
            || !request.keep_alive
        {
            return;
        }
        if let ("/exit", 200) = (request.path.as_str(), status) {
            let code = request.param("code").and_then(|code| code.parse().ok()).unwrap_or(0);
            log(&format!("exit with code {code} as asked"));
            std::process::exit(code);
        }
    }
}

fn respond(request: &Request, peer: &str) -> (u16, Vec<u8>) {
    match request.path.as_str() {
        "/healthz" => switch(request, &STATE.healthy),
        "/readyz" => switch(request, &STATE.ready),
        "/env" => {
            let mut text = String::new();
            for (name, value) in std::env::vars() {
                let _ = writeln!(text, "{name}={value}");
            }
            (200, text.into_bytes())
        }
        "/file" => match request.param("path") {
            Some(path) => read_file(path),
            None => (400, b"/file?path=PATH\n".to_vec()),
        },
        "/memory" => match request.param("mib").map(str::parse::<usize>) {
            Some(Ok(mib)) if mib <= 1 << 20 => hold_memory(mib),
            _ => (400, b"/memory?mib=N (up to 1048576; 0 gives it back)\n".to_vec()),
        },
        "/cpu" => burn(request),
        "/exit" => match request.param("code").unwrap_or("0").parse::<u8>() {
            Ok(code) => (200, format!("exiting with code {code}\n").into_bytes()),
            Err(_) => (400, b"/exit?code=N (0 to 255)\n".to_vec()),
        },
        _ => (200, describe(request, peer)),
    }
}

fn describe(request: &Request, peer: &str) -> Vec<u8> {
    let mut text = format!(
        "Hostname: {}\nClient: {peer}\nRequest: {} {}\n",
        host_name(),
        request.method,
        request.target
    );
    for (name, value) in &request.headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    let mut variables: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| {
            name.starts_with("POD_") || name.starts_with("NODE_") || name.starts_with("DEMO_")
        })
        .collect();
    variables.sort();
    for (name, value) in variables {
        let _ = writeln!(text, "{name}={value}");
    }
    if !request.body.is_empty() {
        let _ = writeln!(text, "Body: {}", String::from_utf8_lossy(&request.body));
    }
    text.into_bytes()
}

fn switch(request: &Request, flag: &AtomicBool) -> (u16, Vec<u8>) {
    if matches!(request.method.as_str(), "POST" | "PUT") {
        return match request.param("ok").map(str::parse::<bool>) {
            Some(Ok(ok)) => {
                flag.store(ok, Ordering::Relaxed);
                (200, format!("{} is now {ok}\n", request.path).into_bytes())
            }
            _ => (400, format!("POST {}?ok=true|false\n", request.path).into_bytes()),
        };
    }
    if flag.load(Ordering::Relaxed) {
        (200, b"ok\n".to_vec())
    } else {
        (503, format!("{} was switched off\n", request.path).into_bytes())
    }
}

fn read_file(path: &str) -> (u16, Vec<u8>) {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => (400, format!("{path}: too large\n").into_bytes()),
        Ok(_) => match std::fs::read(path) {
            Ok(content) => (200, content),
            Err(error) => (500, format!("{path}: {error}\n").into_bytes()),
        },
        Err(error) => (404, format!("{path}: {error}\n").into_bytes()),
    }
}

fn hold_memory(mib: usize) -> (u16, Vec<u8>) {
    let mut held = STATE.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *held = Vec::new();
    let mut block = Vec::new();
    if block.try_reserve_exact(mib << 20).is_err() {
        return (500, format!("cannot reserve {mib} MiB\n").into_bytes());
    }
    // Not zero: pages must be touched to count.
    block.resize(mib << 20, 1);
    *held = black_box(block);
    (200, format!("holding {mib} MiB\n").into_bytes())
}

fn burn(request: &Request) -> (u16, Vec<u8>) {
    let number =
        |name: &str, default: u64| request.param(name).map_or(Some(default), |text| text.parse().ok());
    match (number("millis", 1000), number("seconds", 10)) {
        (Some(millis @ 1..=64_000), Some(seconds @ 1..=3600)) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            let threads = millis.div_ceil(1000);
            for _ in 0..threads {
                let busy = Duration::from_micros(millis * 100 / threads);
                std::thread::spawn(move || {
                    // In slices of 100 ms, so that a fraction of a CPU is spread evenly.
                    while Instant::now() < end {
                        let start = Instant::now();
                        let mut value = 0_u64;
                        while start.elapsed() < busy {
                            value = black_box(value.wrapping_mul(31).wrapping_add(7));
                        }
                        std::thread::sleep(Duration::from_millis(100).saturating_sub(start.elapsed()));
                    }
                });
            }
            (200, format!("using {millis} millicores for {seconds} s\n").into_bytes())
        }
        _ => (400, b"/cpu?millis=N&seconds=S (1 to 64000, 1 to 3600)\n".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str) -> (u16, String) {
        let text = format!("{method} {target} HTTP/1.1\r\n\r\n");
        let request = http::read_request(&mut text.as_bytes()).unwrap().unwrap();
        let (status, body) = respond(&request, "test");
        (status, String::from_utf8(body).unwrap())
    }

    #[test]
    fn health_can_be_switched_off_and_on() {
        assert_eq!(ask("GET", "/healthz").0, 200);
        assert_eq!(ask("POST", "/healthz?ok=false").0, 200);
        assert_eq!(ask("GET", "/healthz").0, 503);
        assert_eq!(ask("GET", "/readyz").0, 200);
        assert_eq!(ask("POST", "/healthz?ok=true").0, 200);
        assert_eq!(ask("GET", "/healthz").0, 200);
    }

    #[test]
    fn wrong_parameters_say_the_right_ones() {
        assert_eq!(ask("GET", "/exit?code=400"), (400, "/exit?code=N (0 to 255)\n".to_owned()));
        assert_eq!(ask("GET", "/memory?mib=x").0, 400);
    }
}
