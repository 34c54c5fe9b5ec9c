//! Arrows between crates point one way.

use std::path::Path;

use anyhow::{Context, Result};

/// Each crate with the crates of the workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("tensor", &[]),
    ("cpu", &["tensor"]),
    ("formats", &["tensor"]),
    ("tokenizer", &[]),
    ("llama", &["tensor", "formats"]),
    ("engine", &["tensor", "llama", "tokenizer"]),
    ("server", &["tokenizer", "engine"]),
    ("generators", &[]),
    ("train", &["tensor", "formats", "tokenizer", "llama", "engine", "generators"]),
    ("cli", &["tensor", "cpu", "formats", "tokenizer", "llama", "engine", "server", "generators", "train"]),
];

/// The crates of this workspace that the manifest text `manifest` names outside of its tests.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]" || line == "[build-dependencies]";
        } else if in_dependencies {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if ALLOWED.iter().any(|(krate, _)| *krate == name) {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn every_crate_depends_only_on_those_below_it() -> Result<()> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    let mut n_checked = 0;
    for entry in std::fs::read_dir(&crates)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|n| n.to_str()).context("a crate's folder")?.to_owned();
        let (_, allowed) =
            ALLOWED.iter().find(|(krate, _)| *krate == name).with_context(|| format!("{name} is not listed"))?;
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        for dependency in dependencies(&manifest) {
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
            n_checked += 1;
        }
    }
    println!("{n_checked} arrows checked");
    assert!(n_checked >= 10);
    Ok(())
}
