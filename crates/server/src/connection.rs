//! Connections: how many, from whom, with what heads, for how long.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::app::App;

/// A connection that is counted and waited for until all clones of this are gone. Requests carry one for those that go on
/// with the connection when the requests are over.
#[derive(Clone)]
pub struct Alive {
    _open: Arc<(OwnedSemaphorePermit, Peer, watch::Receiver<()>)>,
}

/// Answers connections.
#[derive(Clone)]
pub struct Connections {
    app: App,
    router: Router,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    peers: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Connections {
    /// For requests to `router`.
    pub fn new(app: &App, router: Router, tls: Option<TlsAcceptor>) -> Self {
        let places = Arc::new(Semaphore::new(app.limits().connections));
        Self { app: app.clone(), router, tls, places, peers: Arc::default() }
    }

    /// Waits until one more connection may be accepted.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Answers the requests of one connection until it is closed or `ends` says that it should be.
    pub async fn answer(self, stream: TcpStream, peer: IpAddr, place: OwnedSemaphorePermit, ends: watch::Receiver<()>) {
        let Some(peer) = self.enter(peer) else {
            refuse(stream).await;
            return;
        };
        let alive = Alive { _open: Arc::new((place, peer, ends.clone())) };
        let limits = self.app.limits();
        self.count();
        let io = Stall { io: stream, limit: limits.stall_time, timer: None };
        match &self.tls {
            None => self.requests(io, ends, alive).await,
            Some(tls) => {
                // A handshake that takes longer than a head may is none.
                if let Ok(Ok(io)) = timeout(limits.head_time, tls.accept(io)).await {
                    self.requests(io, ends, alive).await;
                }
            }
        }
        self.count();
    }

    async fn requests(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut ends: watch::Receiver<()>,
        alive: Alive,
    ) {
        let limits = self.app.limits();
        let router = self.router.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let router = router.clone();
            request.extensions_mut().insert(alive.clone());
            async move {
                Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_headers(limits.headers)
            .max_buf_size(limits.head_bytes)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        tokio::pin!(connection);
        // How a connection broke is the client's affair.
        tokio::select! {
            _ = &mut connection => return,
            _ = ends.changed() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    fn count(&self) {
        let open = self.app.limits().connections.saturating_sub(self.places.available_permits());
        self.app.metrics().connections(open);
    }

    /// Counts a connection of `peer`, until what it returns is dropped; `None` if there are too many.
    fn enter(&self, peer: IpAddr) -> Option<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let n = peers.entry(peer).or_default();
        if *n >= self.app.limits().connections_per_peer {
            return None;
        }
        *n += 1;
        Some(Peer { peers: Arc::clone(&self.peers), peer })
    }
}

/// A connection that is counted.
struct Peer {
    peers: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    peer: IpAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = peers.get_mut(&self.peer) {
            *n -= 1;
            if *n == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

/// Bytes of a refused peer that are read, so that it sees the refusal.
const REFUSED_BYTES: u64 = 64 << 10;

/// Tells a peer with too many connections so, without reading anything.
async fn refuse(mut stream: TcpStream) {
    const BODY: &str = "{\"error\":{\"message\":\"too many connections from this address\",\"type\":\"server_error\",\
                        \"param\":null,\"code\":\"too_many_connections\"}}";
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let answer = async {
        stream.write_all(head.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing over bytes that were not read would take the answer back.
        tokio::io::copy(&mut stream.take(REFUSED_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

/// A connection that fails when its peer takes no byte for too long.
struct Stall<T> {
    io: T,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncWrite + Unpin> Stall<T> {
    fn watch<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match written {
            Poll::Ready(result) => {
                self.timer = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let limit = self.limit;
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
