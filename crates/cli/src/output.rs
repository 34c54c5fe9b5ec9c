//! Standard output is the result, standard error the progress.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes to standard output at once, so that a stream is seen as it is made.
///
/// # Errors
/// If standard output is closed.
pub fn write(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one line to standard output.
///
/// # Errors
/// If standard output is closed.
pub fn line(text: &str) -> std::io::Result<()> {
    write(&format!("{text}\n"))
}

/// A number with its digits in threes: 1,234,567.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// A bar of bytes on standard error; nothing where that is no terminal.
pub fn byte_bar(what: &str, n_bytes: usize) -> ProgressBar {
    let bar = bar(n_bytes, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_message(what.to_owned());
    bar
}

/// A bar of tokens on standard error; nothing where that is no terminal.
pub fn token_bar(what: &str, n_tokens: usize) -> ProgressBar {
    let bar = bar(n_tokens, "{msg} {wide_bar} {pos}/{len} tokens {per_sec}");
    bar.set_message(what.to_owned());
    bar
}

fn bar(len: usize, template: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(len as u64), target).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
