//! Many clients of a server at once, and what they see of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::median;
use super::report::round;
use super::server::{Answer, Prompt, Refused, Server};
use crate::output::line;

/// How long a client that was told to come back waits where the server does not say, in seconds.
const PAUSE_S: f64 = 0.1;
/// Failures that are told in words; of more, only the number.
const TOLD: usize = 3;

/// What clients ask for.
#[derive(Debug, Clone)]
pub struct Load {
    /// Clients at a time, each of which asks again when it has its answer.
    pub n_clients: usize,
    /// How long they begin new requests. Those that run then are waited for.
    pub duration: Duration,
    /// Tokens of prompts, in turns.
    pub prompts: Vec<usize>,
    /// Tokens of an answer.
    pub tokens: usize,
}

/// What they got.
#[derive(Debug, Default)]
pub struct Seen {
    /// Seconds from the first request to the last answer's end.
    pub seconds: f64,
    /// Answers that were whole.
    pub n_answers: usize,
    /// Tokens of all answers, as the server counts them.
    pub n_tokens: usize,
    /// Events with text in all answers, as the clients count them.
    pub n_events: usize,
    /// Tokens of all prompts, as the server counts them.
    pub n_prompt: usize,
    /// Requests that were told to come back later.
    pub n_refused: usize,
    /// Why others failed.
    pub failures: Vec<String>,
    /// Seconds from each request to its first token.
    pub first_s: Vec<f64>,
    /// Seconds between neighbouring events of a stream, of all streams.
    pub gaps_s: Vec<f64>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.n_answers += other.n_answers;
        self.n_tokens += other.n_tokens;
        self.n_events += other.n_events;
        self.n_prompt += other.n_prompt;
        self.n_refused += other.n_refused;
        self.failures.extend(other.failures);
        self.first_s.extend(other.first_s);
        self.gaps_s.extend(other.gaps_s);
    }

    fn answer(&mut self, answer: &Answer) {
        self.n_answers += 1;
        self.n_tokens += answer.n_tokens;
        self.n_events += answer.events.len();
        self.n_prompt += answer.n_prompt.unwrap_or(0);
        self.first_s.push(answer.first_s);
        let gaps = answer.events.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
        self.gaps_s.extend(gaps);
    }

    /// Tokens of answers a second.
    pub fn speed(&self) -> f64 {
        self.n_tokens as f64 / self.seconds
    }

    /// One object.
    pub fn json(&self, url: &str, load: &Load) -> Value {
        let parts = |values: &[f64]| json!({"p50": round(median(values)), "p99": round(quantile(values, 0.99))});
        json!({
            "test": "load", "url": url, "clients": load.n_clients, "prompt_tokens": load.prompts,
            "tokens": load.tokens, "seconds": round(self.seconds), "answers": self.n_answers,
            "completion_tokens": self.n_tokens, "events": self.n_events, "read_tokens": self.n_prompt,
            "tok_per_s": round(self.speed()), "first_token_s": parts(&self.first_s), "gap_s": parts(&self.gaps_s),
            "refused": self.n_refused, "failed": self.failures.len(),
            "failures": &self.failures[..self.failures.len().min(TOLD)],
        })
    }
}

/// [`super::quantile`], 0 if there are no values.
fn quantile(values: &[f64], share: f64) -> f64 {
    super::quantile(values, share).unwrap_or(0.0)
}

/// Lets the clients loose on `server`.
///
/// # Errors
/// If a client's thread ends in a panic. What requests come to is in the result.
pub fn run(server: &mut Server, load: &Load) -> Result<Seen> {
    // Made before, so that no client takes time of the server's processor for it; they are used again in turns, which
    // no prefix cache may profit from, so there are more of them than a client can come back to soon.
    let n_prompts = (load.n_clients * 64).next_multiple_of(load.prompts.len().max(1));
    let prompts: Vec<Prompt> = load.prompts.iter().cycle().take(n_prompts).map(|n| server.prompt(*n)).collect();
    let (server, prompts, next) = (&*server, &prompts, &AtomicUsize::new(0));
    let began = Instant::now();
    let deadline = began + load.duration;
    let mut seen = std::thread::scope(|scope| {
        let client = || scope.spawn(move || client(server, load, prompts, next, deadline));
        let clients: Vec<_> = (0..load.n_clients).map(|_| client()).collect();
        let mut all = Seen::default();
        for client in clients {
            let Ok(seen) = client.join() else { bail!("a client ended in a panic") };
            all.add(seen);
        }
        Ok(all)
    })?;
    seen.seconds = began.elapsed().as_secs_f64();
    Ok(seen)
}

/// One client's requests, one after another.
fn client(server: &Server, load: &Load, prompts: &[Prompt], next: &AtomicUsize, deadline: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < deadline {
        let prompt = &prompts[next.fetch_add(1, Ordering::Relaxed) % prompts.len()];
        match server.whole_stream(prompt, load.tokens) {
            Ok(answer) => seen.answer(&answer),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(Refused { status: 429 | 503, retry_s, .. }) => {
                    seen.n_refused += 1;
                    // What the server asked for; nothing is waited for that could be noticed earlier.
                    std::thread::sleep(Duration::from_secs_f64(retry_s.unwrap_or(PAUSE_S).clamp(0.0, 60.0)));
                }
                _ => seen.failures.push(format!("{error:#}")),
            },
        }
    }
    seen
}

/// One line a server, and what the first one is in terms of the second.
///
/// # Errors
/// If standard output is closed.
pub fn print_table(rows: &[(&str, &Seen)], load: &Load) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "server",
        "clients",
        "answers",
        "tok/s",
        "first p50",
        "first p99",
        "gap p50",
        "gap p99",
        "refused",
        "failed",
    ]);
    let ms = |seconds: f64| format!("{:.0} ms", 1e3 * seconds);
    for (url, seen) in rows {
        table.add_row([
            (*url).to_owned(),
            load.n_clients.to_string(),
            seen.n_answers.to_string(),
            format!("{:.1}", seen.speed()),
            ms(median(&seen.first_s)),
            ms(quantile(&seen.first_s, 0.99)),
            ms(median(&seen.gaps_s)),
            ms(quantile(&seen.gaps_s, 0.99)),
            seen.n_refused.to_string(),
            seen.failures.len().to_string(),
        ]);
    }
    line(&table.to_string())?;
    for failure in rows.iter().flat_map(|(_, seen)| seen.failures.iter().take(TOLD)) {
        eprintln!("failed: {failure}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
