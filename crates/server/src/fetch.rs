//! Fetching images from addresses that requests name, and from public ones only.
//!
//! A name is resolved once for each connection, by our own resolver; the connection goes to the very address that was
//! checked. Every redirect goes the same way. No proxy, no credentials, no other scheme.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;

use axum::http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use crate::limits::Limits;

/// Most addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// Most bytes of the head of an answer.
const HEAD_BYTES: usize = 16 << 10;

/// How a name and a port become addresses.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Fetches what stands at URLs.
#[derive(Debug)]
pub struct Fetcher {
    agent: Agent,
    limit_bytes: u64,
}

/// Why nothing was fetched, without what other machines said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL is not one that is fetched.
    #[error("{0}")]
    Url(&'static str),
    /// It leads to an address that is not public.
    #[error("leads to an address that is not public")]
    NotPublic,
    /// It has more bytes than allowed.
    #[error("has more than the {limit_bytes} bytes that an image may have")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It took too long.
    #[error("took too long")]
    Slow,
    /// The server there answered with another status than 200.
    #[error("was answered with status {0}")]
    Status(u16),
    /// Something else went wrong on the way.
    #[error("could not be reached")]
    Unreachable,
}

impl Fetcher {
    /// One that asks the system for addresses.
    pub fn system(limits: &Limits) -> Self {
        Self::new(Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())), is_public, limits)
    }

    /// One with its own ways to resolve names and to judge addresses.
    pub fn new(lookup: Lookup, is_allowed: fn(IpAddr) -> bool, limits: &Limits) -> Self {
        let config = Config::builder()
            .proxy(None)
            .max_redirects(limits.fetch_hops)
            .timeout_global(Some(limits.fetch_time))
            .max_response_header_size(HEAD_BYTES)
            .max_idle_connections(0)
            .user_agent(concat!("puna/", env!("CARGO_PKG_VERSION")))
            .accept("image/*")
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Checked { lookup, is_allowed });
        Self { agent, limit_bytes: limits.fetch_bytes }
    }

    /// The bytes at `url`. Blocks.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let uri = check(url)?;
        let response = self.agent.get(uri).call().map_err(|error| self.failed(&error))?;
        if response.status() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let body = response.into_body().into_with_config().limit(self.limit_bytes).read_to_vec();
        body.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> FetchError {
        match error {
            Error::StatusCode(status) => FetchError::Status(*status),
            Error::Timeout(_) => FetchError::Slow,
            Error::BodyExceedsLimit(_) => FetchError::TooLarge { limit_bytes: self.limit_bytes },
            Error::TooManyRedirects => FetchError::Url("is redirected too often"),
            Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => FetchError::NotPublic,
            _ => FetchError::Unreachable,
        }
    }
}

/// A URL that may be fetched: http or https, a host that is a name or a plain address, no user.
fn check(url: &str) -> Result<Uri, FetchError> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains('\\') {
        return Err(FetchError::Url("is no plain URL"));
    }
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    let uri: Uri = url.parse().map_err(|_| FetchError::Url("is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(FetchError::Url("is neither http, https nor data"));
    }
    let authority = uri.authority().ok_or(FetchError::Url("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(FetchError::Url("has a user, which is not sent"));
    }
    let host = authority.host();
    if host.is_empty() {
        return Err(FetchError::Url("has no host"));
    }
    // Systems read 0x7f.1, 017700000001 and 2130706433 as addresses: only the plain form is one here.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or(last.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let is_literal = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
    if is_number && !is_literal {
        return Err(FetchError::Url("has a host that is a number in an odd form"));
    }
    Ok(uri)
}

/// Resolves names and refuses all of a name's addresses if one of them is not allowed.
struct Checked {
    lookup: Lookup,
    is_allowed: fn(IpAddr) -> bool,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checked")
    }
}

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, _config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // Redirects come here too, and have to be what a request may name.
        let uri = check(&uri.to_string()).map_err(|_| refused())?;
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let lookup = Arc::clone(&self.lookup);
        let (sender, receiver) = mpsc::sync_channel(1);
        // The system's resolver knows no deadline: it may go on alone.
        thread::spawn(move || sender.send(lookup(&host, port)));
        let addresses = receiver.recv_timeout(*timeout.after).map_err(|_| Error::Timeout(timeout.reason))??;
        if addresses.iter().any(|address| !(self.is_allowed)(address.ip())) {
            return Err(refused());
        }
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(ADDRESSES) {
            resolved.push(address);
        }
        if resolved.is_empty() { Err(Error::HostNotFound) } else { Ok(resolved) }
    }
}

fn refused() -> Error {
    Error::Io(io::ErrorKind::PermissionDenied.into())
}

/// Whether an address is one of the public internet, by the registries of special-purpose addresses (RFC 6890 and its
/// successors). What is in doubt is not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127, ..] | [224..=255, ..] => true,
        [100, b, ..] => (64..128).contains(&b),
        [169, 254, ..] | [192, 168, ..] => true,
        [172, b, ..] => (16..32).contains(&b),
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast, without protocol assignments and Teredo, documentation, and 6to4, which leads to IPv4 addresses.
    let special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        || first == 0x2002
        || (first == 0x3fff && second < 0x1000);
    (0x2000..0x4000).contains(&first) && !special
}
