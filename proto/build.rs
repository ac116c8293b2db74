//! Compiles every `.proto` file of this folder; a new file needs no line here.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(".")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "proto"))
        .collect();
    files.sort();
    println!("cargo:rerun-if-changed=.");
    // Values and keys are shared, never copied: `bytes` fields become `bytes::Bytes`.
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure().compile_with_config(config, &files, &[PathBuf::from(".")])?;
    Ok(())
}
