//! What a request is answered, and the headers that keep the page to itself.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Request, Response, StatusCode};

use super::Page;
use super::admission::{Admission, File, Verdict};
use super::proof::PROOF;

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");
const ICON: &str = include_str!("page/icon.svg");
const USED_UP: &str = include_str!("page/used_up.html");

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// With every answer. Nothing but our own files, nothing in line; text never becomes markup; no other page shows this one, reads it, or is
/// told of it; nothing is kept.
static HEADERS: [(HeaderName, &str); 8] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

type Answer = Response<Full<Bytes>>;

/// Answers a request as it deserves.
pub(super) async fn answer<B>(request: &Request<B>, page: &Page) -> Answer {
    let Page { admission, proof, teller } = page;
    let mut answer = match admission.judge(request) {
        Verdict::Enter => elsewhere(admission, true),
        Verdict::Again => elsewhere(admission, false),
        Verdict::Page => of(StatusCode::OK, HTML, proof.written_into(PAGE)),
        Verdict::State => {
            let told = teller.tell().await;
            let proven = proof.of(request, &told);
            let mut answer = of(StatusCode::OK, "application/json", told);
            answer.headers_mut().extend(proven.map(|proven| (PROOF, proven)));
            answer
        }
        Verdict::File(File::Style) => of(StatusCode::OK, "text/css; charset=utf-8", STYLE),
        Verdict::File(File::Script) => of(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
        Verdict::File(File::Icon) => of(StatusCode::OK, "image/svg+xml", ICON),
        Verdict::UsedUp => of(StatusCode::FORBIDDEN, HTML, USED_UP),
        Verdict::NotAdmitted => of(StatusCode::FORBIDDEN, TEXT, "`phantom console` gives a link that opens this\n"),
        Verdict::Nothing => of(StatusCode::NOT_FOUND, TEXT, "`phantom console` says where its page is\n"),
        Verdict::Body => of(StatusCode::BAD_REQUEST, TEXT, "nothing is taken here\n"),
        Verdict::Host => of(StatusCode::FORBIDDEN, TEXT, "ask by the address that `phantom console` says\n"),
        Verdict::Elsewhere => {
            let advice = "pages of others may not ask here: copy the link of `phantom console` into the address bar\n";
            of(StatusCode::FORBIDDEN, TEXT, advice)
        }
        Verdict::Method => {
            let mut answer = of(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            answer
        }
    };
    for (name, value) in &HEADERS {
        answer.headers_mut().insert(name.clone(), HeaderValue::from_static(value));
    }
    answer
}

fn of(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// To the page, out of the address bar's sight of the token.
fn elsewhere(admission: &Admission, with_cookie: bool) -> Answer {
    let mut answer = of(StatusCode::SEE_OTHER, TEXT, "");
    let mut put = |name: HeaderName, value: String| {
        // Letters of base64 are fit for every header.
        if let Ok(mut value) = HeaderValue::try_from(value) {
            value.set_sensitive(name == SET_COOKIE);
            answer.headers_mut().insert(name, value);
        }
    };
    put(LOCATION, admission.page());
    if with_cookie {
        put(SET_COOKIE, admission.cookie());
    }
    answer
}
