//! Prints samples of text generators as JSON lines, or as text to read, and how fast they are made:
//! `cargo run -p generators --example samples -- NAME|all [COUNT [train|held-out [json|text]]]`.

use std::time::Instant;

use anyhow::{Result, bail};
use generators::{Role, Sample, Split, all};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let Some(name) = argument(0) else { bail!("usage: samples NAME|all [COUNT [train|held-out [json|text]]]") };
    let n: u64 = argument(1).unwrap_or("10").parse()?;
    let split = if argument(2) == Some("held-out") { Split::HeldOut } else { Split::Train };
    let tasks: Vec<_> = all().into_iter().filter(|task| name == "all" || task.name() == name).collect();
    for task in &tasks {
        for index in 0..n {
            let sample = task.at(split, index);
            if argument(3) == Some("text") { println!("{}", read(&sample)) } else { println!("{}", json(&sample)) }
        }
        let begin = Instant::now();
        (0..500).for_each(|index| drop(task.at(split, index)));
        eprintln!("{}: {:.0} samples a second", task.name(), 500.0 / begin.elapsed().as_secs_f64());
    }
    Ok(())
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn read(sample: &Sample) -> String {
    let turns = sample.turns.iter().map(|turn| {
        let thinking = turn.thinking.as_ref().map(|thinking| format!("<{thinking}>\n")).unwrap_or_default();
        format!("{}: {thinking}{}\n", role(turn.role), turn.to_text())
    });
    turns.collect()
}

fn json(sample: &Sample) -> String {
    let turns = sample.turns.iter().map(|turn| {
        let thinking = turn.thinking.as_deref().map(|text| format!(", \"thinking\": {}", quoted(text)));
        let (role, text) = (role(turn.role), quoted(&turn.to_text()));
        format!("{{\"role\": \"{role}\", \"content\": {text}{}}}", thinking.unwrap_or_default())
    });
    format!("{{\"task\": \"{}\", \"messages\": [{}]}}", sample.task, turns.collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        letter if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
