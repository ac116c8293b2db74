//! The small tools: what a person types after `kubectl exec`, and what probes run.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::{http, serve};

/// Every tool's name; the image has a link for each in `/bin`.
pub const NAMES: &[&str] = &[
    "sh", "cat", "ls", "env", "echo", "sleep", "hostname", "get", "true", "false", "id", "mkdir", "rm",
    "touch", "date",
];

/// Runs a tool and returns its exit code, or `None` if there is no such tool.
pub fn run(name: &str, args: &[String]) -> Option<i32> {
    let mut out = std::io::stdout().lock();
    let code = match name {
        "cat" => report(name, cat(args, &mut out)),
        "ls" => report(name, ls(args, &mut out)),
        "env" => {
            for (name, value) in std::env::vars_os() {
                let _ = writeln!(out, "{}={}", name.to_string_lossy(), value.to_string_lossy());
            }
            0
        }
        "echo" => {
            let (args, end) = match args.first().map(String::as_str) {
                Some("-n") => (&args[1..], ""),
                _ => (args, "\n"),
            };
            i32::from(write!(out, "{}{end}", args.join(" ")).is_err())
        }
        "sleep" => sleep(args),
        "hostname" => i32::from(writeln!(out, "{}", serve::host_name()).is_err()),
        "get" => get(args, &mut out),
        "true" | ":" => 0,
        "false" => 1,
        "id" => report(name, id(&mut out)),
        "mkdir" => report(name, paths(args, |path| std::fs::create_dir_all(path))),
        "rm" => report(
            name,
            paths(args, |path| {
                if path.is_dir() && !path.is_symlink() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                }
            }),
        ),
        "touch" => report(
            name,
            paths(args, |path| std::fs::OpenOptions::new().append(true).create(true).open(path).map(|_| ())),
        ),
        "date" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            i32::from(writeln!(out, "{}.{:03}", now.as_secs(), now.subsec_millis()).is_err())
        }
        _ => return None,
    };
    let _ = out.flush();
    Some(code)
}

fn report(name: &str, result: Result<(), String>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{name}: {error}");
            1
        }
    }
}

fn paths(args: &[String], act: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), String> {
    let named: Vec<&String> = args.iter().filter(|argument| !argument.starts_with('-')).collect();
    if named.is_empty() {
        return Err("which path?".to_owned());
    }
    named.iter().try_for_each(|path| act(Path::new(path)).map_err(|error| format!("{path}: {error}")))
}

fn cat(args: &[String], out: &mut impl Write) -> Result<(), String> {
    let copy = |input: &mut dyn Read, out: &mut dyn Write, name: &str| {
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = input.read(&mut buffer).map_err(|error| format!("{name}: {error}"))?;
            if count == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..count]).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
        }
    };
    if args.is_empty() {
        return copy(&mut std::io::stdin().lock(), out, "stdin");
    }
    for path in args {
        let mut file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
        copy(&mut file, out, path)?;
    }
    Ok(())
}

fn ls(args: &[String], out: &mut impl Write) -> Result<(), String> {
    let long = args.iter().any(|argument| argument.starts_with('-') && argument.contains('l'));
    let all = args.iter().any(|argument| argument.starts_with('-') && argument.contains('a'));
    let mut named: Vec<&str> =
        args.iter().map(String::as_str).filter(|path| !path.starts_with('-')).collect();
    if named.is_empty() {
        named.push(".");
    }
    for path in named {
        let meta = std::fs::symlink_metadata(path).map_err(|error| format!("{path}: {error}"))?;
        let followed = std::fs::metadata(path).map_or(meta.is_dir(), |target| target.is_dir());
        let mut entries = Vec::new();
        if followed {
            for entry in std::fs::read_dir(path).map_err(|error| format!("{path}: {error}"))?.flatten() {
                entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
            entries.retain(|(name, _)| all || !name.starts_with('.'));
            entries.sort();
        } else {
            entries.push((path.to_owned(), path.into()));
        }
        for (name, path) in entries {
            let line = if long { long_line(&name, &path) } else { name };
            writeln!(out, "{line}").map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn long_line(name: &str, path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return name.to_owned() };
    let kind = if meta.is_dir() {
        'd'
    } else if meta.is_symlink() {
        'l'
    } else {
        '-'
    };
    let mode: String = (0..9)
        .rev()
        .map(|bit| if meta.mode() >> bit & 1 == 1 { ['x', 'w', 'r'][bit % 3] } else { '-' })
        .collect();
    let target = std::fs::read_link(path).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
    format!(
        "{kind}{mode} {:>3} {:>5} {:>5} {:>9} {name}{target}",
        meta.nlink(),
        meta.uid(),
        meta.gid(),
        meta.len()
    )
}

fn sleep(args: &[String]) -> i32 {
    match args.first().map(String::as_str) {
        Some("infinity" | "inf") => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        Some(text) => match text.trim_end_matches('s').parse::<f64>() {
            Ok(seconds) if (0.0..=1e9).contains(&seconds) => {
                std::thread::sleep(Duration::from_secs_f64(seconds));
                0
            }
            _ => report("sleep", Err(format!("{text}: not a number of seconds"))),
        },
        None => report("sleep", Err("how many seconds?".to_owned())),
    }
}

fn get(args: &[String], out: &mut impl Write) -> i32 {
    let Some(url) = args.iter().find(|argument| !argument.starts_with('-')) else {
        return report("get", Err("which URL? e.g. get http://10.0.0.1:8080/".to_owned()));
    };
    match http::get(url, Duration::from_secs(5)) {
        Ok((status, body)) => {
            let _ = out.write_all(&body);
            if (200..400).contains(&status) {
                0
            } else {
                report("get", Err(format!("{url}: status {status}")))
            }
        }
        Err(error) => report("get", Err(error)),
    }
}

fn id(out: &mut impl Write) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    let first = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    let groups = field("Groups:").split_whitespace().collect::<Vec<_>>().join(",");
    writeln!(out, "uid={} gid={} groups={groups}", first(field("Uid:")), first(field("Gid:")))
        .map_err(|error| error.to_string())
}
