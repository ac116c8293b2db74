//! `docs/flags.md`: what becomes of each flag of a program, with the start scripts of upstream that pass it. Programs' own tests hold the page to their
//! `--help`.
//!
//! Never here: what flags mean.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use clap::Parser;

use super::upstream;

const SCRIPTS: &str = include_str!("start_scripts.txt");

/// The scripts that pass each flag of a program.
fn scripts(program: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut by_flag: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in SCRIPTS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(of), Some(script)) = (words.next(), words.next()) else { continue };
        for flag in words.filter(|_| of == program) {
            by_flag.entry(flag).or_default().push(script);
        }
    }
    by_flag
}

/// The section of a program.
///
/// # Errors
/// A flag that a start script passes and that the program does not know.
fn section<T: Parser>(program: &str, not_implemented: &[&str]) -> Result<String, String> {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for argument in T::command().get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(flag) = argument.get_long() else { continue };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        rows.insert(flag.to_owned(), format!("works | {}", help.replace('|', "\\|").trim_end_matches('.')));
    }
    rows.insert("version".to_owned(), "works | Prints the version; `raw` prints all of it".to_owned());
    for flag in not_implemented {
        rows.insert((*flag).to_owned(), upstream::row(flag));
    }
    let scripts = scripts(program);
    if let Some(flag) = scripts.keys().find(|flag| !rows.contains_key(**flag)) {
        return Err(format!("start scripts pass --{flag} to {program}, which does not know it"));
    }
    let mut text =
        format!("## {program}\n\n| Flag | | What it does, or why | Passed by |\n| --- | --- | --- | --- |\n");
    for (flag, row) in &rows {
        let by = scripts.get(flag.as_str()).map(|scripts| scripts.join(", ")).unwrap_or_default();
        let _ = writeln!(text, "| `--{flag}` | {row} | {by} |");
    }
    Ok(text)
}

/// Compares a program's section of the page with the program; with `UPDATE_FLAGS` in the environment, writes it.
///
/// # Errors
/// The section is not as it should be, or a start script passes what the program does not know.
pub fn check<T: Parser>(program: &str, not_implemented: &[&str]) -> Result<(), String> {
    let wanted = section::<T>(program, not_implemented)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
    let page = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let head = format!("## {program}\n");
    let (before, rest) = page.split_once(&head).unwrap_or((&page, ""));
    let end = rest.find("\n## ").map_or(rest.len(), |end| end + 1);
    if format!("{head}{}", rest[..end].trim_end()) == wanted.trim_end() {
        return Ok(());
    }
    if std::env::var_os("UPDATE_FLAGS").is_none() {
        return Err(format!(
            "docs/flags.md is not what {program} says; run its tests once with UPDATE_FLAGS=1"
        ));
    }
    let gap = if rest[end..].is_empty() { "" } else { "\n" };
    let page = format!("{}\n\n{wanted}{gap}{}", before.trim_end(), &rest[end..]);
    std::fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Flags {
        /// Where to go.
        #[arg(long)]
        _kubeconfig: Option<String>,
    }

    #[test]
    fn scripts_are_read_by_program() {
        assert_eq!(scripts("kubelet")["config"], ["kubeadm", "local-up", "gce"]);
        assert!(!scripts("kube-proxy").contains_key("etcd-servers"));
    }

    #[test]
    fn what_a_script_passes_has_to_be_known() {
        let error = section::<Flags>("kube-scheduler", &["vmodule"]).expect_err("not all are here");
        assert!(error.contains("to kube-scheduler, which does not know it"), "{error}");
        let text = section::<Flags>("none", &["vmodule", "profiling"]).expect("no script starts it");
        assert!(
            text.contains("| `--profiling` | accepted as `false` | profiles are not served |  |"),
            "{text}"
        );
    }
}
