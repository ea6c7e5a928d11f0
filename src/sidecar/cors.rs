//! Which pages may ask (fetch.spec.whatwg.org, "CORS protocol"): a browser asks only where this says so. It guards the people at a browser,
//! not the flags: whoever is no browser asks as before.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::body::Body;

/// How long a browser may keep what a preflight said, in seconds: what Chromium takes at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What scripts may read of an answer: the status of gRPC-Web, and the tag of OFREP.
const EXPOSED: HeaderValue = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, etag, retry-after");

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");

/// By `--cors-origin`.
#[derive(Debug, Clone, Default)]
pub(super) struct Cors {
    any: bool,
    origins: Vec<String>,
}

/// A page that may ask.
pub(super) struct Admitted(HeaderValue);

impl Cors {
    /// `*`: any page. Nothing: none.
    pub(super) fn of(origins: &[String]) -> Self {
        let origins: Vec<_> = origins.iter().map(|origin| origin.trim().trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { any: origins.iter().any(|origin| origin == "*"), origins }
    }

    pub(super) fn admits(&self, headers: &HeaderMap) -> Option<Admitted> {
        let origin = headers.get(header::ORIGIN)?;
        if self.any {
            return Some(Admitted(HeaderValue::from_static("*")));
        }
        let named = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&named).then(|| Admitted(origin.clone()))
    }

    /// The answer to a browser that asks whether it may ask. `None`: it is no such question.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::Plain(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(header::VARY, HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"));
        // Without these a browser does not ask.
        if let Some(Admitted(origin)) = self.admits(headers) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            // Applications send headers that become part of the context.
            if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
        }
        Some(response)
    }
}

impl Admitted {
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(origins: &[&str], origin: &'static str) -> Option<String> {
        let cors = Cors::of(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>());
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
        cors.admits(&headers).map(|Admitted(origin)| origin.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_the_pages_that_are_named_may_ask() {
        assert_eq!(admitted(&[], "https://shop.example"), None);
        assert_eq!(admitted(&["*"], "https://shop.example").as_deref(), Some("*"));
        assert_eq!(admitted(&["https://shop.example/"], "https://shop.example").as_deref(), Some("https://shop.example"));
        assert_eq!(admitted(&["https://shop.example"], "https://Shop.example").as_deref(), Some("https://Shop.example"));
        for other in ["http://shop.example", "https://shop.example:8443", "https://evil.shop.example", "null"] {
            assert_eq!(admitted(&["https://shop.example"], other), None, "{other}");
        }
    }

    #[test]
    fn a_preflight_is_told_what_it_may_and_nothing_else_is_one() {
        let cors = Cors::of(&["https://shop.example".to_owned()]);
        let ask = |origin: &str, method| {
            let request = Request::builder().method(method).header(header::ORIGIN, origin);
            request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST").header(header::ACCESS_CONTROL_REQUEST_HEADERS, "x-user")
        };
        let answer = cors.preflight(&ask("https://shop.example", Method::OPTIONS).body(()).unwrap()).unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-user");
        let answer = cors.preflight(&ask("https://other.example", Method::OPTIONS).body(()).unwrap()).unwrap();
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(cors.preflight(&ask("https://shop.example", Method::POST).body(()).unwrap()).is_none());
        assert!(cors.preflight(&Request::builder().method(Method::OPTIONS).body(()).unwrap()).is_none());
    }
}
