//! The metrics over HTTP, on a socket of this machine.
//!
//! One thread serves all connections, and neither the main loop nor a worker ever waits for it. Whoever asks gets what the
//! daemon has told within the last second, or it is asked, once, for all who wait. A connection has its time, and a request
//! its size; of more connections than there may be, the oldest ends. So whatever clients do, it costs little, and who asks
//! properly is answered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_executor::{LocalExecutor, Task};
use async_io::{Async, Timer};
use async_lock::Mutex;
use blocking::unblock;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::{TEXT_FORMAT, exposition};
use crate::control::Orders;

/// What is served.
const PATH: &str = "/metrics";

/// How long the daemon may take to answer, before whoever asks is told to come again.
const PATIENCE: Duration = Duration::from_secs(3);

/// For so long, what the daemon has told is not asked again.
const FRESH: Duration = Duration::from_secs(1);

/// How many connections there may be.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to say what it wants, and how long a connection lasts in all.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// How long a request may be, without a body.
const REQUEST_MAX: usize = 8 << 10;

/// How long to wait when there are no descriptors for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// Serves the metrics on a new socket at `path`, which only its owner can use, for as long as the process is there.
pub fn serve(path: &Path, orders: Orders) -> io::Result<()> {
    let listener = listen(path)?;
    let listener = Async::new(listener)?;
    let source = Source {
        orders,
        told: Arc::default(),
    };
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            let executor = LocalExecutor::new();
            let source = Rc::new(source);
            async_io::block_on(executor.run(accept(&executor, &listener, &source)))
        })?;
    Ok(())
}

/// A socket in the place of one that an earlier daemon may have left. Nobody finds it before it has its mode.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

async fn accept(
    executor: &LocalExecutor<'static>,
    listener: &Async<UnixListener>,
    source: &Rc<Source>,
) -> Infallible {
    // A connection ends when its task is dropped.
    let mut connections: VecDeque<Task<()>> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= CONNECTIONS_MAX {
                    connections.pop_front();
                }
                let connection = connection(stream, Rc::clone(source));
                connections.push_back(executor.spawn(connection));
            }
            Err(error) => {
                log::warn!("metrics: a connection can't be taken: {error}");
                Timer::after(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: Async<UnixStream>, source: Rc<Source>) {
    let service = service_fn(|request| {
        let source = Rc::clone(&source);
        async move { Ok::<_, Infallible>(source.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_MAX)
        .keep_alive(false)
        .serve_connection(FuturesIo::new(stream), service);
    let ended = futures_lite::future::or(served, async {
        Timer::after(CONNECTION_TIME).await;
        Ok(())
    });
    if let Err(error) = ended.await {
        log::debug!("metrics: {error}");
    }
}

/// Where the metrics come from.
struct Source {
    orders: Orders,
    told: Arc<Mutex<Told>>,
}

/// What the daemon has told last, and when.
#[derive(Default)]
struct Told {
    last: Option<(Instant, Bytes)>,
}

impl Source {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            return refused;
        }
        match self.metrics().await {
            Ok(text) => {
                let mut response = Response::new(Full::new(text));
                let text_format = HeaderValue::from_static(TEXT_FORMAT);
                response.headers_mut().insert(CONTENT_TYPE, text_format);
                response
            }
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        }
    }

    async fn metrics(&self) -> Result<Bytes, String> {
        let mut told = self.told.lock_arc().await;
        let orders = self.orders.clone();
        // Whoever has asked may have gone: that the daemon is asked ends with its answer, and until then nobody else asks.
        unblock(move || told.refreshed(&orders)).await
    }
}

impl Told {
    fn refreshed(&mut self, orders: &Orders) -> Result<Bytes, String> {
        if let Some((when, text)) = &self.last {
            if when.elapsed() < FRESH {
                return Ok(text.clone());
            }
        }
        let status = orders
            .status_within(PATIENCE)
            .map_err(|error| error.to_string())?;
        let text = exposition(&status).map_err(|error| error.to_string())?;
        let text = Bytes::from(text);
        self.last = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests;
