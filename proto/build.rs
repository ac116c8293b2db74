//! Compiles every `.proto` file of this folder; a new file needs no line here. Beside the code it leaves `descriptors.bin`, what the
//! files say, for whoever needs names at run time (JSON, reflection).

use std::path::PathBuf;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

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
    let mut descriptors = config.load_fds(&files, &[PathBuf::from(".")])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    spell_urls(&mut descriptors);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// `peerURLs` would become `peer_ur_ls` in Rust; it becomes `peer_urls`. Code only: names mean nothing on the wire.
fn spell_urls(descriptors: &mut FileDescriptorSet) {
    fn of_message(message: &mut DescriptorProto) {
        for field in &mut message.field {
            if let Some(stem) = field.name().strip_suffix("URLs") {
                field.name = Some(format!("{stem}_urls"));
            }
        }
        message.nested_type.iter_mut().for_each(of_message);
    }
    descriptors.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(of_message);
}
