//! Counters in the format that Prometheus reads.

use std::fmt::Write;
use std::time::Duration;

use engine::service::{Stats, Usage};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A route and how its request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    route: String,
    status: u16,
}

/// What the engine counts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// All counters of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Route, Counter>,
    first_token: Histogram,
    duration: Histogram,
    tokens: Family<Kind, Counter>,
    connections: Gauge,
    engine: Family<Kind, Gauge>,
}

/// Upper ends of the classes of times, in seconds.
const SECONDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];

impl Metrics {
    /// Counters at 0, for the model of this name.
    pub fn new(model: &str) -> Self {
        let mut registry = Registry::with_prefix("puna");
        let requests = Family::<Route, Counter>::default();
        let (first_token, duration) = (Histogram::new(SECONDS), Histogram::new(SECONDS));
        let tokens = Family::<Kind, Counter>::default();
        let connections = Gauge::default();
        let engine = Family::<Kind, Gauge>::default();
        registry.register("model", "The model that is served", Info::new([("id", model.to_owned())]));
        registry.register("requests", "Requests that were answered, by route and status", requests.clone());
        registry.register("first_token_seconds", "From a request to its first token", first_token.clone());
        registry.register("request_seconds", "From a request to the last byte of its answer", duration.clone());
        registry.register("tokens", "Tokens of prompts, of prompts found in the cache, and of answers", tokens.clone());
        registry.register("connections", "Connections that are open", connections.clone());
        registry.register("engine", "The engine's own counters, as of its last step", engine.clone());
        Self { registry, requests, first_token, duration, tokens, connections, engine }
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let route = Route { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&route).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A job has given its first token.
    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// A job has ended.
    pub fn used(&self, usage: &Usage) {
        for (kind, n) in [("prompt", usage.n_prompt), ("cached", usage.n_cached), ("completion", usage.n_completion)] {
            self.tokens.get_or_create(&Kind { kind }).inc_by(n as u64);
        }
    }

    /// How many connections are open.
    pub fn connections(&self, n: usize) {
        self.connections.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Everything as text.
    pub fn text(&self, stats: &Stats) -> String {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let long = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (kind, value) in [
            ("steps", long(stats.n_steps)),
            ("waiting", count(stats.n_waiting)),
            ("running", count(stats.n_running)),
            ("finished", long(stats.n_ended[0])),
            ("cancelled", long(stats.n_ended[1])),
            ("failed", long(stats.n_ended[2])),
            ("preempted", long(stats.n_preempted)),
            ("prompt_positions", long(stats.n_positions[0])),
            ("cached_positions", long(stats.n_positions[1])),
            ("tokens", long(stats.n_positions[2])),
            ("pages_of_sequences", count(stats.n_pages[0])),
            ("pages_of_cache", count(stats.n_pages[1])),
            ("pages", count(stats.n_pages[2])),
            ("audio_frames", long(stats.n_frames)),
            ("panics", long(stats.n_panics)),
        ] {
            self.engine.get_or_create(&Kind { kind }).set(value);
        }
        let mut out = String::new();
        // Writing to a string can not fail; half a page would be one without its end mark.
        if text::encode(&mut out, &self.registry).is_err() {
            let _ = out.write_str("");
        }
        out
    }
}
