//! Where the numbers are fetched: HTTP on the loopback device or a Unix socket, for whoever the operator lets in there.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::config::MetricsAt;

/// Who fetches at one time: one Prometheus, and a person.
const VISITORS: usize = 8;

/// Connections that may wait for accept().
const BACKLOG: i32 = 64;

/// How long one may take, from accept to the last byte.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the numbers cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("cannot offer metrics at {at}: {source}")]
pub struct MetricsError {
    at: String,
    source: io::Error,
}

/// Who has the numbers.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// In the text form of OpenMetrics.
    async fn metrics(&self) -> String;
}

/// Bound, not serving yet.
#[derive(Debug)]
pub enum Listener {
    /// On the loopback device.
    Tcp(TcpListener),
    /// On a socket of its owner.
    Unix(UnixListener),
}

impl Listener {
    /// Binds. A socket file that a run before left is replaced, anything else is not.
    ///
    /// # Errors
    /// When the address is taken, or no socket can be made.
    pub async fn bind(at: &MetricsAt) -> Result<Self, MetricsError> {
        let bound = match at {
            MetricsAt::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            MetricsAt::Unix(path) => bind_unix(path).map(Self::Unix),
        };
        bound.map_err(|source| MetricsError { at: at.to_string(), source })
    }

    /// Serves for ever.
    pub async fn serve(self, source: Arc<dyn Source>) {
        let places = Arc::new(Semaphore::new(VISITORS));
        let is_tcp = matches!(self, Self::Tcp(_));
        loop {
            // Places are not closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let source = source.clone();
            let visitor: io::Result<Box<dyn Visitor>> = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(visitor, _)| Box::new(visitor) as _),
                Self::Unix(listener) => listener.accept().await.map(|(visitor, _)| Box::new(visitor) as _),
            };
            match visitor {
                Ok(visitor) => drop(tokio::spawn(async move {
                    let _ = timeout(LIMIT, one(visitor, source, is_tcp)).await;
                    drop(place);
                })),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

trait Visitor: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Visitor for T {}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        fs::remove_file(path)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux makes the file with the mode that the socket has before it has a name: nobody can come in between. Who else may read
    // it is for the operator to say, by the folder or by chmod.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

async fn one(visitor: Box<dyn Visitor>, source: Arc<dyn Source>, is_tcp: bool) {
    let service = service_fn(|request| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(answer(&request, &*source, is_tcp).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(LIMIT).keep_alive(false);
    let _ = http.serve_connection(TokioIo::new(visitor), service).await;
}

async fn answer(request: &Request<Incoming>, source: &dyn Source, is_tcp: bool) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A page of the web could lead its own name here, and read what it is told then.
    if is_tcp && !is_loopback(host) {
        return plain(StatusCode::FORBIDDEN, "ask by the loopback address\n");
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the numbers are at /metrics\n");
    }
    if *request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let mut response = plain(StatusCode::OK, &source.metrics().await);
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Whether a Host header names the loopback device itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    struct Fixed;

    #[async_trait]
    impl Source for Fixed {
        async fn metrics(&self) -> String {
            "phantom_ready 1\n# EOF\n".to_owned()
        }
    }

    async fn asked(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn only_who_asks_the_loopback_device_by_its_own_name_is_answered() {
        let bound = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let Listener::Tcp(tcp) = &bound else { panic!("{bound:?}") };
        let address = tcp.local_addr().unwrap();
        let server = tokio::spawn(bound.serve(Arc::new(Fixed)));
        for (request, status) in [
            (format!("GET /metrics HTTP/1.1\r\nHost: {address}"), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9464".to_owned(), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]:9464".to_owned(), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: rebound.example".to_owned(), "403"),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.rebound.example".to_owned(), "403"),
            ("GET /metrics HTTP/1.0".to_owned(), "403"),
            (format!("GET / HTTP/1.1\r\nHost: {address}"), "404"),
            (format!("POST /metrics HTTP/1.1\r\nHost: {address}"), "405"),
        ] {
            let answer = asked(TcpStream::connect(address).await.unwrap(), &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.contains(&format!(" {status} ")),
                "{request}: {answer}"
            );
            assert_eq!(answer.contains("phantom_ready"), status == "200", "{request}: {answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_one_that_a_run_before_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        let at: MetricsAt = format!("unix:{}", path.display()).parse().unwrap();
        drop(Listener::bind(&at).await.unwrap());
        assert!(path.exists(), "as after a crash");
        let bound = Listener::bind(&at).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&at).await.is_err(), "it is in use");
        let server = tokio::spawn(bound.serve(Arc::new(Fixed)));
        let answer = asked(UnixStream::connect(&path).await.unwrap(), "GET /metrics HTTP/1.1\r\nHost: any").await;
        assert!(answer.contains("phantom_ready 1") && answer.contains("openmetrics-text"), "{answer}");
        server.abort();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Listener::bind(&format!("unix:{}", file.display()).parse().unwrap()).await.is_err());
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
