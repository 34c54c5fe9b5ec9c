//! Every example runs on a toy model, and is short.

use std::path::Path;
use std::process::Command;

fn run(binary: &str, arguments: &[&str]) -> String {
    let model = tempfile::tempdir().expect("a temporary folder");
    it::speaking::write(model.path()).expect("the toy is written");
    let output = Command::new(binary).arg(model.path()).args(arguments).output().expect("the example starts");
    assert!(output.status.success(), "{binary}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn complete() {
    let text = run(env!("CARGO_BIN_EXE_complete"), &["Once"]);
    assert!(!text.trim().is_empty());
    assert_eq!(text, run(env!("CARGO_BIN_EXE_complete"), &["Once"]));
}

#[test]
fn chat() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("picture.png");
    image::RgbImage::from_pixel(30, 20, image::Rgb([10, 200, 30])).save(&path).expect("the picture is written");
    assert!(!run(env!("CARGO_BIN_EXE_chat"), &["What?", path.to_str().expect("UTF-8")]).is_empty());
}

#[test]
fn next_tokens() {
    let text = run(env!("CARGO_BIN_EXE_next_tokens"), &["The sky"]);
    let shares: Vec<f64> =
        text.lines().map(|line| line.split('%').next().unwrap_or_default().trim().parse().expect("a share")).collect();
    assert_eq!(shares.len(), 10);
    assert!(shares.is_sorted_by(|a, b| a >= b) && shares.iter().sum::<f64>() <= 100.1, "{text}");
}

#[test]
fn batch() {
    let together = run(env!("CARGO_BIN_EXE_batch"), &["One", "A second text", "3"]);
    let alone = run(env!("CARGO_BIN_EXE_batch"), &["A second text"]);
    assert_eq!(together.lines().count(), 3);
    assert_eq!(together.lines().nth(1), alone.lines().next());
}

#[test]
fn layers() {
    let text = run(env!("CARGO_BIN_EXE_layers"), &["Hello"]);
    assert_eq!(text.lines().count(), 8);
    assert!(text.starts_with("layer.0.out"), "{text}");
}

#[test]
fn an_example_fits_a_screen() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an example").path();
        let n_lines = std::fs::read_to_string(&path).expect("source").lines().count();
        assert!(n_lines < 60, "{} has {n_lines} lines", path.display());
    }
}
