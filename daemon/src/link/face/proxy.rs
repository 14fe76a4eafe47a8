//! A reverse proxy to a web server nearby: its site is this node's face.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Body;

/// Longest wait for the site to take the connection: it is nearby.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for the head of its answer: what common reverse proxies allow.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What the site answers; else the status of what went wrong.
pub(super) async fn answer(site: SocketAddr, mut request: Request<Incoming>) -> Result<Response<Body>, StatusCode> {
    *request.uri_mut() = path(request.uri());
    *request.version_mut() = hyper::Version::HTTP_11;
    strip(request.headers_mut());
    let tcp = timeout(CONNECT_LIMIT, TcpStream::connect(site)).await.map_err(|_| StatusCode::GATEWAY_TIMEOUT)?;
    let tcp = tcp.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    // Ends with the request: when the answer was read, or when either side gave up.
    tokio::spawn(connection);
    let answer = timeout(ANSWER_LIMIT, sender.send_request(request)).await;
    let answer = answer.map_err(|_| StatusCode::GATEWAY_TIMEOUT)?.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut answer = answer.map(|body| body.map_err(Into::into).boxed_unsync());
    strip(answer.headers_mut());
    Ok(answer)
}

/// Path and query only, as a server is asked.
fn path(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("upgrade", "websocket"),
            ("keep-alive", "5"),
            ("x-kept", "1"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }
}
