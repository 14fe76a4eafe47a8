//! Where the numbers are fetched: HTTP on the loopback device or a Unix socket, for whoever the operator lets in there.

use std::convert::Infallible;
use std::future::Future;
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
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::local::{Listener, Stream, is_from_here, names_loopback};

/// Connections at one time.
const VISITORS: usize = 32;

/// And of one user: one Prometheus, and a person.
const SHARE: usize = 8;

/// How long one may take, from accept to the last byte.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the head of a request may take: whoever wants the numbers sends it at once.
const HEAD_LIMIT: Duration = Duration::from_secs(3);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who has the numbers.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// In the text form of OpenMetrics.
    async fn metrics(&self) -> String;
}

/// Serves for ever.
pub async fn serve(listener: Listener, source: Arc<dyn Source>) {
    let mut visitors = Visitors::default();
    let is_tcp = matches!(listener, Listener::Tcp(_));
    loop {
        match listener.accept().await {
            Ok((visitor, caller)) => {
                let source = source.clone();
                // Whose it is, is not said of who has gone again: they are all one user.
                visitors.take(caller.uid().ok().flatten(), async move {
                    let _ = timeout(LIMIT, one(visitor, source, is_tcp)).await;
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Who is there at the moment, the oldest first, with the user they are of. Nobody waits: whoever comes is let in, and it is the oldest of
/// the same user who gives way, or of the user who has most. So no user of this computer keeps the others out.
#[derive(Default)]
struct Visitors(Vec<(Option<u32>, AbortHandle)>);

impl Visitors {
    fn take(&mut self, user: Option<u32>, visit: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|(_, visit)| !visit.is_finished());
        let count = |user: Option<u32>| self.0.iter().filter(|(other, _)| *other == user).count();
        let gives = if count(user) >= SHARE {
            Some(user)
        } else if self.0.len() >= VISITORS {
            self.0.iter().rev().map(|(user, _)| *user).max_by_key(|user| count(*user))
        } else {
            None
        };
        if let Some(at) = gives.and_then(|gives| self.0.iter().position(|(user, _)| *user == gives)) {
            self.0.remove(at).1.abort();
        }
        self.0.push((user, tokio::spawn(visit).abort_handle()));
    }
}

async fn one(visitor: Box<dyn Stream>, source: Arc<dyn Source>, is_tcp: bool) {
    let service = service_fn(|request| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(answer(&request, &*source, is_tcp).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).keep_alive(false);
    let _ = http.serve_connection(TokioIo::new(visitor), service).await;
}

async fn answer(request: &Request<Incoming>, source: &dyn Source, is_tcp: bool) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A page of the web could lead its own name here, and read what it is told then.
    if is_tcp && !names_loopback(host) {
        return plain(StatusCode::FORBIDDEN, "ask by the loopback address\n");
    }
    // That there is anything here says who runs this.
    if is_tcp && !is_from_here(request.headers(), host) {
        return plain(StatusCode::FORBIDDEN, "not for pages from elsewhere\n");
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

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    for (name, value) in [("x-content-type-options", "nosniff"), ("cross-origin-resource-policy", "same-origin")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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
        let bound = Listener::bind(&"127.0.0.1:0".parse().unwrap(), "metrics").await.unwrap();
        let address = bound.tcp().unwrap().unwrap();
        let server = tokio::spawn(serve(bound, Arc::new(Fixed)));
        for (request, status) in [
            (format!("GET /metrics HTTP/1.1\r\nHost: {address}"), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9464".to_owned(), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]:9464".to_owned(), "200"),
            ("GET /metrics HTTP/1.1\r\nHost: rebound.example".to_owned(), "403"),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.rebound.example".to_owned(), "403"),
            ("GET /metrics HTTP/1.0".to_owned(), "403"),
            (format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nSec-Fetch-Site: cross-site"), "403"),
            (format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nSec-Fetch-Site: none"), "200"),
            (format!("GET / HTTP/1.1\r\nHost: {address}"), "404"),
            (format!("POST /metrics HTTP/1.1\r\nHost: {address}"), "405"),
        ] {
            let answer = asked(TcpStream::connect(address).await.unwrap(), &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.contains(&format!(" {status} ")),
                "{request}: {answer}"
            );
            assert_eq!(answer.contains("phantom_ready"), status == "200", "{request}: {answer}");
            assert!(answer.contains("cross-origin-resource-policy: same-origin"), "{answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn whoever_may_open_the_socket_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        let bound = Listener::bind(&format!("unix:{}", path.display()).parse().unwrap(), "metrics").await.unwrap();
        let server = tokio::spawn(serve(bound, Arc::new(Fixed)));
        let answer = asked(UnixStream::connect(&path).await.unwrap(), "GET /metrics HTTP/1.1\r\nHost: any").await;
        assert!(answer.contains("phantom_ready 1") && answer.contains("openmetrics-text"), "{answer}");
        server.abort();
    }

    /// Eight connections that said nothing once kept everybody out, and any user could make them.
    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_out() {
        let bound = Listener::bind(&"127.0.0.1:0".parse().unwrap(), "metrics").await.unwrap();
        let address = bound.tcp().unwrap().unwrap();
        let server = tokio::spawn(serve(bound, Arc::new(Fixed)));
        let mut silent = Vec::new();
        for _ in 0..4 * VISITORS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}");
        let answer = asked(TcpStream::connect(address).await.unwrap(), &request);
        let answer = timeout(HEAD_LIMIT / 2, answer).await.expect("it waits for those who say nothing");
        assert!(answer.contains("phantom_ready 1"), "{answer}");
        // The last ones stay until their time is over.
        let mut last = silent.pop().unwrap();
        assert!(timeout(HEAD_LIMIT / 4, last.read_u8()).await.is_err(), "it gave way to another user's");
        let ended = timeout(2 * HEAD_LIMIT, last.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "nothing comes, and it is waited for");
        server.abort();
    }

    #[tokio::test]
    async fn nobody_gives_way_to_a_user_who_has_more() {
        let mut visitors = Visitors::default();
        let users = |visitors: &Visitors| visitors.0.iter().map(|(user, _)| user.unwrap()).collect::<Vec<_>>();
        visitors.take(Some(1), std::future::pending());
        for _ in 0..100 {
            visitors.take(Some(7), std::future::pending());
        }
        assert_eq!(users(&visitors), [&[1][..], &[7; SHARE][..]].concat());
        // Somebody who has many names takes of who has most.
        let names = VISITORS - 2;
        for user in 0..names {
            visitors.take(Some(100 + u32::try_from(user).unwrap()), std::future::pending());
            assert!(visitors.0.len() <= VISITORS);
        }
        let now = users(&visitors);
        assert!(now.starts_with(&[1, 7, 100]) && now.len() == VISITORS, "{now:?}");
        // Where all have one each the oldest goes; whoever comes is let in.
        visitors.take(Some(200), std::future::pending());
        let now = users(&visitors);
        assert!(now.starts_with(&[7, 100]) && now.ends_with(&[200]) && now.len() == VISITORS, "{now:?}");
    }

    #[tokio::test]
    async fn its_socket_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        let bound = Listener::bind(&format!("unix:{}", path.display()).parse().unwrap(), "metrics").await.unwrap();
        let server = tokio::spawn(serve(bound, Arc::new(Fixed)));
        assert!(path.exists());
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled() && !path.exists());
    }
}
