//! From a bound socket to the end of the process: accepting, draining, watching for progress.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Phase};
use crate::connection::Connections;
use crate::root;

/// Threads of the runtime. The engine's own threads compute; these only pass things on.
const THREADS: usize = 2;
/// Threads for work that waits: databases, images, tokenising.
const BLOCKING_THREADS: usize = 16;
/// For last frames to be written after everything was told to end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Between two looks at the engine's progress.
const WATCH: Duration = Duration::from_millis(500);
/// Looks between two writings of the status file.
const STATUS_EVERY: u32 = 4;

/// How the server runs.
#[derive(Debug)]
pub struct Run {
    /// The socket.
    pub listener: TcpListener,
    /// TLS, if it is wanted.
    pub tls: Option<crate::tls::TlsFiles>,
    /// What running requests may still take after the first signal.
    pub drain: Duration,
    /// Where the server's state is written for `puna ps`.
    pub status: Option<PathBuf>,
}

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to end, and did.
    Drained,
    /// Something waited and nothing moved.
    Stuck,
    /// The engine's thread ended.
    EngineStopped,
}

/// Where a server that listens at `address` is asked from this machine: one that listens everywhere, at localhost.
pub fn url(address: SocketAddr, is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    match address.ip() {
        ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", address.port()),
        IpAddr::V4(ip) => format!("{scheme}://{ip}:{}", address.port()),
        // Without what the system adds to addresses of one link: URLs have no place for it.
        IpAddr::V6(ip) => format!("{scheme}://[{ip}]:{}", address.port()),
    }
}

/// Serves until a signal ends it. `is_alive` says whether the engine's thread runs.
///
/// # Errors
/// If the runtime can not start, the socket fails or TLS files can not be used.
pub fn run(app: &App, run: Run, is_alive: impl Fn() -> bool + Send + Sync) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("server")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let stops = signals()?;
        serve(app, run, stops, is_alive).await
    });
    // What still runs on blocking threads must not hold the process up.
    runtime.shutdown_background();
    outcome
}

/// One message for each signal that asks the process to end.
fn signals() -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(2);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let (mut signal, sender) = (signal(kind)?, sender.clone());
            tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(()).await.is_ok() {} });
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move { while tokio::signal::ctrl_c().await.is_ok() && sender.send(()).await.is_ok() {} });
    Ok(receiver)
}

/// Serves until `stops` says so twice, or once and what runs has ended.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    app: &App,
    run: Run,
    mut stops: mpsc::Receiver<()>,
    is_alive: impl Fn() -> bool,
) -> io::Result<Outcome> {
    let tls = run.tls.as_ref().map(crate::tls::TlsFiles::open).transpose().map_err(io::Error::other)?;
    run.listener.set_nonblocking(true)?;
    let address = run.listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(run.listener)?;
    let batches = tokio::spawn(crate::batch::work(app.clone()));
    // Each connection has a receiver, which it lets go when it is closed.
    let (connections, _) = watch::channel(());
    let status = Status { path: run.status, address, is_tls: tls.is_some() };
    let ended = tokio::select! {
        () = accept(app, &listener, tls, &connections) => Outcome::Drained,
        outcome = watch(app, &status, &is_alive) => outcome,
        _ = stops.recv() => Outcome::Drained,
    };
    drop(listener);
    if ended == Outcome::Drained {
        tracing::info!("draining: {} requests wait or run", app.model().handle.n_jobs());
        app.set_phase(Phase::Draining);
        app.model().handle.drain();
        let closed = closed(app, connections, batches);
        tokio::pin!(closed);
        let is_over = tokio::select! {
            () = &mut closed => true,
            () = sleep(run.drain) => false,
            _ = stops.recv() => false,
            outcome = watch(app, &status, &is_alive) => {
                status.remove();
                return Ok(outcome);
            }
        };
        app.set_phase(Phase::Ending);
        if !is_over {
            let _ = timeout(LAST_WORDS, closed).await;
        }
    } else {
        app.set_phase(Phase::Ending);
        let _ = timeout(LAST_WORDS, closed(app, connections, batches)).await;
    }
    status.remove();
    Ok(ended)
}

/// Waits until all connections are closed and the requests of batches that run are answered, which is kept with them.
async fn closed(app: &App, connections: watch::Sender<()>, batches: JoinHandle<()>) {
    // Whoever waits for batches is to see that the server ends.
    app.batches().notify_one();
    let _ = connections.send(());
    connections.closed().await;
    // One that panicked has ended too.
    let _ = batches.await;
}

async fn accept(app: &App, listener: &tokio::net::TcpListener, tls: Option<TlsAcceptor>, ends: &watch::Sender<()>) {
    let connections = Connections::new(app, root::router(app), tls);
    while let Some(place) = connections.place().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Frames are small, and each is waited for.
                let _ = stream.set_nodelay(true);
                tokio::spawn(connections.clone().answer(stream, peer.ip(), place, ends.subscribe()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of descriptors, most likely: some will be closed.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Ends when the engine does, or when it stands still although something waits.
async fn watch(app: &App, status: &Status, is_alive: &impl Fn() -> bool) -> Outcome {
    let limits = app.limits();
    let mut ticks = interval(WATCH.min(limits.unready_time / 10).max(Duration::from_millis(1)));
    let mut n_ticks = 0u32;
    loop {
        ticks.tick().await;
        if !is_alive() && app.phase() == Phase::Serving {
            tracing::error!("the engine's thread has ended");
            return Outcome::EngineStopped;
        }
        let still = app.progress();
        if still >= limits.stuck_time {
            let (stats, _) = app.model().handle.stats();
            tracing::error!(?still, n_jobs = app.model().handle.n_jobs(), ?stats, "something waits and nothing moves");
            return Outcome::Stuck;
        }
        if n_ticks.is_multiple_of(STATUS_EVERY) {
            status.write(app);
        }
        n_ticks = n_ticks.wrapping_add(1);
    }
}

/// The file that `puna ps` reads.
struct Status {
    path: Option<PathBuf>,
    address: SocketAddr,
    is_tls: bool,
}

impl Status {
    fn write(&self, app: &App) {
        let Some(path) = &self.path else { return };
        let model = app.model();
        let (stats, _) = model.handle.stats();
        let about = model.handle.about();
        let status = json!({
            "version": 1,
            "pid": std::process::id(),
            "model": model.id,
            "url": format!("{}/v1", url(self.address, self.is_tls)),
            "at": app.now(),
            "uptime_s": app.uptime().as_secs(),
            "context": about.context,
            "capacity": about.capacity,
            "waiting": stats.n_waiting,
            "running": stats.n_running,
            "steps": stats.n_steps,
            "tokens": stats.n_positions[2],
            "tokens_per_s": app.pace().tokens_per_second(stats.n_positions[2]),
            "pages": {"sequences": stats.n_pages[0], "cache": stats.n_pages[1], "all": stats.n_pages[2]},
        });
        if let Err(error) = replace(path, status.to_string().as_bytes()) {
            tracing::debug!(%error, "the status file could not be written");
        }
    }

    fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes a file beside `path`, then puts it there: whoever reads sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_be_asked_as_it_is_shown() {
        for (address, is_tls, want) in [
            ("127.0.0.1:8080", false, "http://127.0.0.1:8080"),
            ("0.0.0.0:80", false, "http://localhost:80"),
            ("[::]:443", true, "https://localhost:443"),
            ("[::1]:8080", false, "http://[::1]:8080"),
            ("[fe80::1%3]:8080", false, "http://[fe80::1]:8080"),
            ("192.168.0.7:8080", true, "https://192.168.0.7:8080"),
        ] {
            assert_eq!(url(address.parse().expect("an address"), is_tls), want);
        }
    }
}
