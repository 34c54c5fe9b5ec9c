//! Prints how long the clips of every task with speech are and how fast they are made:
//! `cargo run -p generators --example clips -- [COUNT]`.

use std::time::Instant;

use anyhow::Result;
use generators::{Part, Split, speech};

fn main() -> Result<()> {
    let n: u64 = std::env::args().nth(1).unwrap_or("40".into()).parse()?;
    for task in speech::all() {
        let begin = Instant::now();
        let mut seconds = Vec::new();
        for index in 0..n {
            for part in task.at(Split::Train, index).turns.into_iter().flat_map(|turn| turn.content) {
                if let Part::Sound(sound) = part {
                    seconds.push(sound.samples.len() as f64 / f64::from(sound.rate_hz));
                }
            }
        }
        let rate = n as f64 / begin.elapsed().as_secs_f64();
        seconds.sort_by(f64::total_cmp);
        let short = seconds.iter().filter(|length| **length < 4.0).count();
        let (median, max) = (seconds.get(seconds.len() / 2), seconds.last());
        println!(
            "{}: {rate:.0} samples a second; median {:.1} s, longest {:.1} s, {short} of {} below 4 s",
            task.name(),
            median.unwrap_or(&0.0),
            max.unwrap_or(&0.0),
            seconds.len()
        );
    }
    Ok(())
}
