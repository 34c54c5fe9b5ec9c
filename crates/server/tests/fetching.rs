//! H5: images at URLs. Never a connection to an address that is not public.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use server::Limits;
use server::fetch::{FetchError, Fetcher, Lookup, is_public};

/// A listener on this machine that counts who comes, and answers what the path asks for.
fn listen() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let n = stream.read(&mut head).unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..n]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
                let _ = match path.as_str() {
                    "/loopback" => stream.write_all(
                        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/x\r\ncontent-length: 0\r\n\r\n",
                    ),
                    "/name" => stream.write_all(
                        b"HTTP/1.1 302 Found\r\nlocation: http://inside.example/x\r\ncontent-length: 0\r\n\r\n",
                    ),
                    "/file" => stream
                        .write_all(b"HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n"),
                    "/round" => {
                        stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n")
                    }
                    "/endless" => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                        while stream.write_all(&[0; 65536]).is_ok() {}
                        Ok(())
                    }
                    "/slow" => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n");
                        while stream.write_all(b"x").is_ok() {
                            std::thread::sleep(Duration::from_millis(100));
                        }
                        Ok(())
                    }
                    "/missing" => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
                    _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nimage"),
                };
            });
        }
    });
    (address, count)
}

/// Names whose addresses a test decides, one list for each time that it is asked.
type Names = BTreeMap<&'static str, Vec<Vec<&'static str>>>;

/// A resolver that knows `names`, and plain addresses as the system does; it counts what it was asked.
fn lookup(names: Names, port: u16, asked: Arc<AtomicUsize>) -> Lookup {
    let names = Mutex::new(names);
    Arc::new(move |host, _| {
        asked.fetch_add(1, Ordering::SeqCst);
        let mut names = names.lock().unwrap();
        let list = match names.get_mut(host) {
            Some(lists) if lists.len() > 1 => lists.remove(0),
            Some(lists) => lists[0].clone(),
            None => return Ok(vec![SocketAddr::new(host.parse().map_err(|_| std::io::ErrorKind::NotFound)?, port)]),
        };
        Ok(list.into_iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    })
}

const NOT_PUBLIC: [&str; 34] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2001::1",
];

#[test]
fn addresses_are_public_or_not() {
    for text in NOT_PUBLIC {
        assert!(!is_public(text.parse().unwrap()), "{text}");
    }
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
        "2001:4860::8888",
    ] {
        assert!(is_public(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn no_url_leads_inside() {
    let (address, count) = listen();
    let asked = Arc::new(AtomicUsize::new(0));
    let names = Names::from([
        ("inside.example", vec![vec!["127.0.0.1"]]),
        ("half.example", vec![vec!["8.8.8.8", "127.0.0.1"]]),
        ("mapped.example", vec![vec!["::ffff:127.0.0.1"]]),
        ("localhost", vec![vec!["127.0.0.1"]]),
        ("xn--nxasmq6b.example", vec![vec!["10.0.0.1"]]),
    ]);
    let limits = Limits { fetch_time: Duration::from_secs(5), ..Limits::default() };
    let fetcher = Fetcher::new(lookup(names, address.port(), Arc::clone(&asked)), is_public, &limits);
    let port = address.port();
    let mut urls: Vec<String> = NOT_PUBLIC
        .iter()
        .map(|ip| if ip.contains(':') { format!("http://[{ip}]:{port}/") } else { format!("http://{ip}:{port}/") })
        .collect();
    urls.extend(
        [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://127.0.0.1./",
            "http://0/",
            "http://localhost/",
            "http://LOCALHOST/",
            "http://inside.example/",
            "http://half.example/",
            "http://mapped.example/",
            "http://user@inside.example/",
            "http://user:pass@8.8.8.8/",
            "http://8.8.8.8@127.0.0.1/",
            "http://127.0.0.1\\@8.8.8.8/",
            "http:\\\\127.0.0.1/",
            "http://8.8.8.8\t@127.0.0.1/",
            "http://127.0.0.1#@8.8.8.8/",
            "http://127.0.0.1?@8.8.8.8/",
            "http:///127.0.0.1/",
            "http:/127.0.0.1/",
            "http:127.0.0.1",
            "//127.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "javascript:alert(1)",
            "unix:/run/x.sock",
            "http://",
            "http://:80/",
            "http://[::1",
            "http://[::ffff:7f00:1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://\u{2460}\u{2461}\u{2466}.0.0.1/",
            "http://xn--nxasmq6b.example/",
            "http://127.0.0.1 /",
            "HTTP://127.0.0.1/",
            "https://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fe80::1%25lo]/",
            "",
            " ",
            "http://\u{0}/",
        ]
        .map(str::to_owned),
    );
    for url in &urls {
        let result = fetcher.fetch(url);
        assert!(
            matches!(result, Err(FetchError::Url(_) | FetchError::NotPublic | FetchError::Unreachable)),
            "{url}: {result:?}"
        );
    }
    println!(
        "{} URLs, {} names asked for, {} connections",
        urls.len(),
        asked.load(Ordering::SeqCst),
        count.load(Ordering::SeqCst)
    );
    assert!(urls.len() >= 80);
    assert_eq!(count.load(Ordering::SeqCst), 0, "nobody came");
}

/// The same listener, allowed: it would have noticed. And what it may do to whoever comes.
#[test]
fn what_is_allowed_is_fetched_within_bounds() {
    let (address, count) = listen();
    let asked = Arc::new(AtomicUsize::new(0));
    // The second time that it is asked, the name has another address: rebinding.
    let names = Names::from([
        ("pictures.example", vec![vec!["127.0.0.1"]]),
        ("turning.example", vec![vec!["127.0.0.1"], vec!["10.0.0.1"]]),
        ("inside.example", vec![vec!["10.0.0.1"]]),
    ]);
    let limits = Limits { fetch_time: Duration::from_secs(2), fetch_bytes: 1 << 20, ..Limits::default() };
    let allowed = |ip: IpAddr| ip == IpAddr::V4(Ipv4Addr::LOCALHOST);
    let fetcher = Fetcher::new(lookup(names, address.port(), Arc::clone(&asked)), allowed, &limits);
    let fetch = |path: &str| fetcher.fetch(&format!("http://pictures.example{path}"));
    assert_eq!(fetch("/a.png"), Ok(b"image".to_vec()));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(fetcher.fetch("http://turning.example/a"), Ok(b"image".to_vec()));
    assert_eq!(fetcher.fetch("http://turning.example/a"), Err(FetchError::NotPublic));
    assert_eq!(fetch("/name"), Err(FetchError::NotPublic));
    // A redirect to a file is followed as a path of the same server, if at all: no file of this machine is read.
    let file = fetch("/file");
    assert!(file.as_ref().is_err() || file == Ok(b"image".to_vec()), "{file:?}");
    assert_eq!(fetch("/round"), Err(FetchError::Url("is redirected too often")));
    assert_eq!(fetch("/endless"), Err(FetchError::TooLarge { limit_bytes: 1 << 20 }));
    assert_eq!(fetch("/slow"), Err(FetchError::Slow));
    assert_eq!(fetch("/missing"), Err(FetchError::Status(404)));
    println!("{} connections, {} names asked for", count.load(Ordering::SeqCst), asked.load(Ordering::SeqCst));
}
