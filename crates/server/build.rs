//! Puts the files of `web/` into the binary.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../../web");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    if root.is_dir() {
        collect(&root, &root, &mut files)?;
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        println!("cargo::rerun-if-changed={}", path.display());
        // Writing to a string can not fail.
        let _ = writeln!(code, "    ({name:?}, include_bytes!({:?}).as_slice()),", path.display().to_string());
    }
    code.push(']');
    fs::write(Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("web.rs"), code)
}

/// Files that browsers ask for, with their names below `root`.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path().canonicalize()?;
        if path.is_dir() {
            // Tests and what they need do not belong to the page.
            if !path.ends_with("tests") && !path.ends_with("node_modules") {
                collect(root, &path, files)?;
            }
            continue;
        }
        let kinds = ["html", "css", "js", "svg", "png", "ico", "woff2", "webmanifest", "json", "txt"];
        let is_package = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("package"));
        let is_served =
            !is_package && path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind));
        if let (true, Ok(name)) = (is_served, path.strip_prefix(root.canonicalize()?)) {
            files.push((name.display().to_string().replace('\\', "/"), path.clone()));
        }
    }
    Ok(())
}
