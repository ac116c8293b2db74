//! One static binary that stands in for a whole image: an HTTP server to deploy, the pause process, and the small tools
//! that `kubectl exec` and probes need. Runs FROM scratch.
//!
//! Never here: dependencies (it must link statically with nothing but std), and anything about the cluster itself.

mod applets;
mod http;
mod serve;
mod shell;
mod signals;

use std::process::ExitCode;

const USAGE: &str = "coracle-demo: a server and small tools in one static binary

  coracle-demo serve           HTTP on $PORT (8080); $START_DELAY seconds before it listens
  coracle-demo pause           sleep, reap children, end on SIGTERM
  coracle-demo sh [-c CMD]     a minimal shell
  coracle-demo TOOL [ARGS]     one of: ";

fn main() -> ExitCode {
    let mut args: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let program = args.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path)).to_owned();
    if program.starts_with("coracle-demo") || program.is_empty() {
        args.drain(..args.len().min(1));
    } else {
        args[0] = program;
    }
    let code = match args.first().map_or("serve", String::as_str) {
        "serve" => serve::run(),
        "pause" => signals::pause(),
        "sh" => shell::run(&args[1..]),
        "help" | "--help" | "-h" => {
            println!("{USAGE}{}", applets::NAMES.join(" "));
            0
        }
        name => applets::run(name, &args[1..]).unwrap_or_else(|| {
            eprintln!("coracle-demo: {name}: no such tool; `coracle-demo help` lists them");
            127
        }),
    };
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
