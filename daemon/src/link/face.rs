//! What strangers see: a small web server with a built-in page, or with files of a folder.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, SERVER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest file that a folder face serves: it is a face, not a file server.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// Largest request or answer that goes through to an upstream server.
const BODY_MAX: usize = 8 * 1024 * 1024;

/// How long an upstream server may take.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(30);

/// The body of an answer.
pub type Body = Full<Bytes>;

/// What the web server shows.
#[derive(Debug, Clone, Default)]
pub enum Face {
    /// The page that a freshly installed server has.
    #[default]
    BuiltIn,
    /// The files of a folder.
    Folder(Arc<PathBuf>),
    /// Another web server, asked on behalf of the stranger (HTTP/1.1, no TLS).
    Proxy(SocketAddr),
}

const WELCOME: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Welcome</title></head>\n\
<body>\n<h1>It works</h1>\n<p>The web server is running. Nothing has been published here yet.</p>\n</body>\n</html>\n";

impl Face {
    /// The answer to a stranger's request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Self::Proxy(upstream) = self {
            return proxied(*upstream, request).await.unwrap_or_else(|| page(StatusCode::BAD_GATEWAY));
        }
        let head = request.method() == Method::HEAD;
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => self.page(request.uri().path()).await,
            _ => {
                let mut response = page(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        };
        response.headers_mut().insert(SERVER, HeaderValue::from_static("httpd"));
        if head {
            let len = hyper::body::Body::size_hint(response.body()).lower();
            *response.body_mut() = Body::default();
            response.headers_mut().insert(hyper::header::CONTENT_LENGTH, len.into());
        }
        response
    }

    async fn page(&self, path: &str) -> Response<Body> {
        match (self, path) {
            (Self::BuiltIn, "/" | "/index.html") => html(StatusCode::OK, WELCOME),
            (Self::BuiltIn | Self::Proxy(_), _) => page(StatusCode::NOT_FOUND),
            (Self::Folder(folder), path) => match read(folder, path).await {
                Some((bytes, kind)) => content(StatusCode::OK, Bytes::from(bytes), kind),
                None => page(StatusCode::NOT_FOUND),
            },
        }
    }
}

/// The upstream's answer; `None` when it gives none in time.
async fn proxied(upstream: SocketAddr, request: Request<Incoming>) -> Option<Response<Body>> {
    let ask = async {
        let tcp = TcpStream::connect(upstream).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.ok()?;
        tokio::spawn(connection);
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.ok()?.to_bytes();
        let response = sender.send_request(Request::from_parts(parts, Body::new(body))).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.ok()?.to_bytes();
        Some(Response::from_parts(parts, Body::new(body)))
    };
    tokio::time::timeout(UPSTREAM_LIMIT, ask).await.ok()?
}

async fn read(folder: &Path, path: &str) -> Option<(Vec<u8>, &'static str)> {
    let relative = Path::new(path.trim_start_matches('/'));
    // Nothing outside the folder, however it is spelt.
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let mut file = folder.join(relative);
    if tokio::fs::metadata(&file).await.ok()?.is_dir() {
        file.push("index.html");
    }
    let inside = tokio::fs::canonicalize(&file).await.ok()?;
    if !inside.starts_with(tokio::fs::canonicalize(folder).await.ok()?) {
        return None;
    }
    let metadata = tokio::fs::metadata(&inside).await.ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return None;
    }
    Some((tokio::fs::read(&inside).await.ok()?, kind_of(&inside)))
}

fn kind_of(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("txt") => "text/plain; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn page(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    html(
        status,
        &format!(
            "<html>\n<head><title>{code} {reason}</title></head>\n<body><h1>{code} {reason}</h1></body>\n</html>\n"
        ),
    )
}

fn html(status: StatusCode, text: &str) -> Response<Body> {
    content(status, Bytes::copy_from_slice(text.as_bytes()), "text/html; charset=utf-8")
}

fn content(status: StatusCode, bytes: Bytes, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
