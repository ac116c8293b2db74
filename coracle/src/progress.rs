//! Progress on the terminal: a spinner for the step under way, a line with its duration for each step done. Without a
//! terminal only the lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of one command.
pub struct Progress {
    bar: ProgressBar,
    step: String,
    since: Instant,
    began: Instant,
}

impl Progress {
    /// Nothing under way yet.
    pub fn new() -> Self {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, step: String::new(), since: Instant::now(), began: Instant::now() }
    }

    /// Ends the step under way and begins the next.
    pub fn step(&mut self, step: &str) {
        self.finish_step();
        step.clone_into(&mut self.step);
        self.since = Instant::now();
        self.bar.set_message(step.to_owned());
    }

    /// Says more about the step under way.
    pub fn detail(&self, detail: &str) {
        self.bar.set_message(format!("{}: {detail}", self.step));
    }

    fn finish_step(&mut self) {
        if self.step.is_empty() {
            return;
        }
        let line = format!("  ✓ {} ({:.2} s)", self.step, self.since.elapsed().as_secs_f64());
        // A hidden bar swallows its lines.
        if self.bar.is_hidden() {
            eprintln!("{line}")
        } else {
            self.bar.println(line)
        }
        self.step.clear();
    }

    /// Ends the last step; returns the time of all.
    pub fn finish(mut self) -> Duration {
        self.finish_step();
        self.bar.finish_and_clear();
        self.began.elapsed()
    }
}
