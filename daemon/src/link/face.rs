//! What strangers see: a small web server with a built-in page, with files of a folder, or with another server's site.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::percent::decoded;

mod proxy;

/// Longest head of a request: what most web servers allow.
// protocol: L9
const HEAD_MAX: usize = 8 * 1024;

/// Part of a file that is in memory at once.
const PART: usize = 32 * 1024;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What the web server shows.
#[derive(Debug, Clone, Default)]
pub enum Face {
    /// The page that a freshly installed server has.
    #[default]
    BuiltIn,
    /// The files of a folder.
    Folder(Arc<PathBuf>),
    /// What a web server at this address answers, asked over plain HTTP: this is a reverse proxy.
    Proxy(SocketAddr),
}

const WELCOME: &str = "<html><body><h1>It works!</h1></body></html>\n";

/// The web server's settings, the same for every connection; `head` is the wait for a request, first or next.
pub fn http(head: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head).max_header_size(HEAD_MAX).title_case_headers(true);
    http
}

impl Face {
    /// The answer to a stranger's request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Self::Proxy(site) = self {
            return proxy::answer(*site, request).await.unwrap_or_else(local_page);
        }
        let mut response = match *request.method() {
            Method::GET => self.page(request.uri().path()).await,
            // The length stays, the body goes.
            Method::HEAD => self.page(request.uri().path()).await.map(|_| empty()),
            _ => {
                let mut response = local_page(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        };
        response.headers_mut().insert(SERVER, HeaderValue::from_static("httpd"));
        response
    }

    async fn page(&self, path: &str) -> Response<Body> {
        match self {
            Self::BuiltIn if matches!(path, "/" | "/index.html") => html(StatusCode::OK, WELCOME),
            Self::Folder(folder) => file(folder, path).await.unwrap_or_else(|| local_page(StatusCode::NOT_FOUND)),
            _ => local_page(StatusCode::NOT_FOUND),
        }
    }
}

/// The file of the folder that a path names, or its index.html.
async fn file(folder: &Path, path: &str) -> Option<Response<Body>> {
    let relative = decoded(path.trim_start_matches('/'))?;
    let relative = Path::new(&relative);
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
    // Asked before opening, since to open a pipe or a device may wait or act.
    if !tokio::fs::metadata(&inside).await.ok()?.is_file() {
        return None;
    }
    let opened = File::open(&inside).await.ok()?;
    let len = opened.metadata().await.ok()?.len();
    let mut response = content(StatusCode::OK, parts(opened, len), kind_of(&inside));
    response.headers_mut().insert(CONTENT_LENGTH, len.into());
    Some(response)
}

/// The first `len` bytes of a file, a part at a time.
fn parts(file: File, len: u64) -> Body {
    let parts = stream::try_unfold(file.take(len), |mut file| async move {
        let mut part = Vec::with_capacity(PART);
        let read = file.read_buf(&mut part).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Frame::data(Bytes::from(part)), file)))
    });
    StreamBody::new(parts).map_err(Into::into).boxed_unsync()
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
        Some("ico") => "image/x-icon",
        Some("pdf") => "application/pdf",
        _ => "application/octet-stream",
    }
}

/// The page of an error that has no better one.
fn local_page(status: StatusCode) -> Response<Body> {
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
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut response = content(status, body.boxed_unsync(), "text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    response
}

fn content(status: StatusCode, body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// No body.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn nothing_outside_the_folder_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("site");
        std::fs::create_dir_all(folder.join("sub dir")).unwrap();
        std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
        std::fs::write(folder.join("sub dir/index.html"), "inside").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret.txt"), folder.join("link.txt")).unwrap();
        let read = async |path: &str| match file(&folder, path).await {
            Some(response) => Some(response.into_body().collect().await.unwrap().to_bytes()),
            None => None,
        };
        let absolute = format!("/{}", dir.path().join("secret.txt").display());
        for outside in [
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/sub%20dir/../../secret.txt",
            "//etc/passwd",
            "/link.txt",
            "/sub%20dir/../sub%20dir/index.html",
            &absolute,
        ] {
            assert_eq!(read(outside).await, None, "{outside}");
        }
        assert_eq!(read("/sub%20dir").await.unwrap(), "inside");
        assert_eq!(read("/sub%20dir/index.html").await.unwrap(), "inside");
        assert_eq!(read("/").await, None);
    }

    #[tokio::test]
    async fn a_large_file_is_served_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(dir.path().join("large"), &bytes).unwrap();
        let response = file(dir.path(), "/large").await.unwrap();
        assert_eq!(response.headers()[CONTENT_LENGTH], "300000");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes);
    }
}
