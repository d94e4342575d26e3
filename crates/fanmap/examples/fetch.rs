//! Pages fetched by blocking code, thirty at a time, from a server of its own on the loopback interface.
//!
//! `cargo run --release --example fetch`

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fanmap::ThreadPool;

const PAGES: u32 = 120;
const AT_A_TIME: usize = 30;
const TAKES: Duration = Duration::from_millis(20);

/// What any HTTP client does: ask, and wait for the answer.
fn fetch(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(server)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if !head.starts_with("HTTP/1.0 200") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(body.to_owned())
}

/// Answers one request, as slowly as a server far away. Every seventh page is missing.
fn answer(connection: TcpStream) -> io::Result<()> {
    let request: Vec<String> = BufReader::new(&connection)
        .lines()
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect::<Result<_, _>>()?;
    thread::sleep(TAKES);
    let path = request
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    let number: u32 = path.trim_start_matches('/').parse().unwrap_or(0);
    let status = if number % 7 == 6 { "404 Not Found" } else { "200 OK" };
    write!(&connection, "HTTP/1.0 {status}\r\n\r\nThis is page {number}.")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || answer(connection));
        }
    });

    let started = Instant::now();
    let pool = ThreadPool::new(AT_A_TIME)?;
    let pages = pool.map(0..PAGES, move |number| fetch(server, &format!("/{number}")));
    let (mut found, mut missing) = (0, 0);
    for page in pages {
        // The outer error would be a panic, the inner one is what the fetch returned.
        match page? {
            Ok(_) => found += 1,
            Err(_) => missing += 1,
        }
    }
    let one_by_one = TAKES * PAGES;
    println!(
        "{found} pages and {missing} missing in {:.2?}; one by one at least {one_by_one:.2?}",
        started.elapsed()
    );
    assert_eq!((found, missing), (103, 17));
    Ok(())
}
