use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::control::Order;
use crate::control::tests::example;

/// Less than a client may take that says nothing.
const SOON: Duration = Duration::from_secs(4);

struct Server {
    path: PathBuf,
    asked: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// With a daemon that answers.
    fn new() -> Server {
        let (orders, receiver) = Orders::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for order in receiver {
                if let Order::Status { reply } = order {
                    counter.fetch_add(1, Ordering::Relaxed);
                    // Whoever asked may have given up.
                    let _ = reply.send(example());
                }
            }
        });
        Server {
            asked,
            ..Server::of(orders)
        }
    }

    fn of(orders: Orders) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.sock");
        // An earlier daemon has left its own.
        drop(UnixListener::bind(&path).unwrap());
        serve(&path, orders).unwrap();
        Server {
            path,
            asked: Arc::default(),
            _folder: folder,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// All that is answered to these bytes.
    fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // It may have heard enough before the end.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn who_asks_for_the_metrics_gets_them() {
    let server = Server::new();
    let file = fs::metadata(&server.path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let answer = server.answer(GET);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"),
        "{head}"
    );
    assert_eq!(body, exposition(&example()).unwrap());
    let head = server.answer(b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.ends_with("\r\n\r\n"));
}

#[test]
fn who_asks_wrongly_is_told_so() {
    let server = Server::new();
    let long = [b"GET /metrics HTTP/1.1\r\nX: ", &[b'x'; 100_000][..]].concat();
    let many = [
        b"GET /metrics HTTP/1.1\r\n",
        &b"X: y\r\n".repeat(1_000)[..],
        b"\r\n",
    ]
    .concat();
    let far = [b"GET /", &[b'x'; 70_000][..], b" HTTP/1.1\r\n\r\n"].concat();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (
            b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "405",
        ),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\0\x01\x02 nonsense\r\n\r\n", "400"),
        (b"GET /metrics HTTP/7.5\r\n\r\n", "400"),
        (&long, "431"),
        (&many, "431"),
        (&far, "431"),
    ] {
        let answer = server.answer(request);
        let words = String::from_utf8_lossy(&request[..request.len().min(50)]);
        let told = answer.split(' ').nth(1);
        let is_far = status == "431" && told == Some("414");
        assert!(told == Some(status) || is_far, "{words:?}: {answer:?}");
    }
    assert!(server.answer(GET).contains("200 OK"));
}

#[test]
fn those_who_hang_hold_up_nobody() {
    let server = Server::new();
    let mut hanging: Vec<UnixStream> = Vec::new();
    for number in 0..5 * CONNECTIONS_MAX {
        let mut stream = server.connect();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
        }
        hanging.push(stream);
    }
    assert!(server.answer(GET).contains("200 OK"));
    // Of those that hang, the first have been shown the door.
    let mut end = Vec::new();
    hanging.remove(1).read_to_end(&mut end).unwrap();
    assert!(end.is_empty());
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    let server = Server::new();
    let mut deaf: Vec<UnixStream> = (0..2 * CONNECTIONS_MAX).map(|_| server.connect()).collect();
    for stream in &mut deaf {
        let _ = stream.write_all(GET);
    }
    assert!(server.answer(GET).contains("200 OK"));
}

#[test]
fn a_flood_asks_the_daemon_once_in_a_while() {
    let server = Server::new();
    let begun = Instant::now();
    let requests = 200;
    (0..requests).for_each(|_| assert!(server.answer(GET).contains("200 OK")));
    let most = begun.elapsed().as_secs() + 1;
    let asked = server.asked.load(Ordering::Relaxed) as u64;
    assert!(asked <= most, "asked {asked} times in {most} s");
}

#[test]
fn a_daemon_that_cannot_be_asked_is_no_silence() {
    let (orders, receiver) = Orders::new();
    let server = Server::of(orders);
    let answer = server.answer(GET);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("did not answer within 3 seconds"),
        "{answer}"
    );
    drop(receiver);
    let answer = server.answer(GET);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("tcmu-pr is stopping\n"), "{answer}");
}
