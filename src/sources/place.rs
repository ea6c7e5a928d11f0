//! Where a source is, as flagd's command line and its configuration say it. What is not served here is refused by its name.

use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;
use ::http::uri::{Authority, Scheme};
use serde_json::{Map, Value as Json};

use super::secret::Secret;
use super::tls::Roots;

/// Between two questions to a web server; flagd's.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// By which clients select its flags: the URI without `file:`, `grpc://` or `grpcs://`.
    pub name: String,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    Http(Server),
    Grpc(Peer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub(super) uri: Uri,
    /// `None`: in clear.
    pub(super) roots: Option<Roots>,
    pub(super) interval: Duration,
    /// Value of the header `Authorization`.
    pub(super) authorization: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub(super) authority: Authority,
    /// `None`: in clear.
    pub(super) roots: Option<Roots>,
    pub(super) provider_id: String,
    pub(super) selector: String,
    /// Of one message, in bytes. `None`: as large as a document may be.
    pub(super) max_message: Option<usize>,
}

/// Why a source is not taken: what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source {name}: {wrong}")]
pub struct Refused {
    pub name: String,
    pub wrong: String,
}

/// The fields of a source, by flagd's names.
#[derive(Debug, Default)]
struct Given {
    uri: String,
    provider: String,
    selector: String,
    provider_id: String,
    interval_s: Option<u64>,
    bearer_token: Option<String>,
    auth_header: Option<String>,
    cert_path: String,
    tls: bool,
    max_message: Option<usize>,
}

impl Source {
    /// One of `--uri`.
    pub fn of_uri(uri: &str) -> Result<Self, Refused> {
        let provider = match uri.split_once(':').map_or("", |(scheme, _)| scheme) {
            "file" => "file",
            "http" | "https" => "http",
            "grpc" | "grpcs" => "grpc",
            "gs" => "gcs",
            other @ ("azblob" | "s3") => other,
            _ if uri.starts_with("core.openfeature.dev") => "kubernetes",
            _ => {
                let wrong = "found no kind of source, expected file:PATH, http://HOST/PATH or grpc://HOST:PORT".to_owned();
                return Err(Refused { name: uri.to_owned(), wrong });
            }
        };
        Given { uri: uri.to_owned(), provider: provider.to_owned(), ..Given::default() }.source()
    }

    /// Those of `--sources`, or of `sources` in a configuration: a list of objects.
    pub fn all_of_json(sources: &Json) -> Result<Vec<Self>, Refused> {
        let Json::Array(sources) = sources else {
            return Err(refused("--sources", "found no list, expected a JSON list of objects with `uri` and `provider`"));
        };
        let read = |(index, source): (usize, &Json)| match source {
            Json::Object(fields) => Given::read(fields, &format!("{index} of --sources")).and_then(Given::source),
            _ => Err(refused(&format!("{index} of --sources"), "found no object, expected one with `uri` and `provider`")),
        };
        sources.iter().enumerate().map(read).collect()
    }
}

fn refused(name: &str, wrong: impl Into<String>) -> Refused {
    Refused { name: name.to_owned(), wrong: wrong.into() }
}

impl Given {
    /// Names are read in any case, as flagd reads those of its configuration. It ignores what it does not know.
    fn read(fields: &Map<String, Json>, place: &str) -> Result<Self, Refused> {
        let mut given = Self::default();
        let named = fields.get("uri").and_then(Json::as_str).unwrap_or(place);
        for (name, value) in fields {
            let wrong = |expected: &str| refused(named, format!("`{name}` is {value}, expected {expected}"));
            let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a text"));
            let number = || value.as_u64().filter(|number| *number > 0).ok_or_else(|| wrong("a whole number above 0"));
            match name.to_lowercase().as_str() {
                _ if value.is_null() => {}
                "uri" => given.uri = text()?,
                "provider" => given.provider = text()?,
                "selector" => given.selector = text()?,
                "providerid" => given.provider_id = text()?,
                "bearertoken" => given.bearer_token = Some(text().map_err(|_| hidden(named, name))?),
                "authheader" => given.auth_header = Some(text().map_err(|_| hidden(named, name))?),
                "certpath" => given.cert_path = text()?,
                "interval" => given.interval_s = Some(number()?),
                "maxmsgsize" => given.max_message = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
                "tls" => given.tls = value.as_bool().ok_or_else(|| wrong("true or false"))?,
                "oauth" => return Err(refused(named, "`oauth` is not supported; give a token with `bearerToken` or `authHeader`")),
                _ => {}
            }
        }
        if given.uri.is_empty() || given.provider.is_empty() {
            return Err(refused(named, "found a source without `uri` or `provider`, expected both"));
        }
        Ok(given)
    }

    fn source(self) -> Result<Source, Refused> {
        let name = self.uri.clone();
        let refuse = |wrong: &str| Err(refused(&name, wrong));
        match self.provider.as_str() {
            "file" | "fsnotify" | "fileinfo" => Ok(self.file()),
            "http" => self.http(),
            "grpc" => self.grpc(),
            "kubernetes" => refuse(
                "custom resources of Kubernetes are not read; put the flags into a ConfigMap, mount it, and name the file with file:PATH",
            ),
            "gcs" | "azblob" | "s3" => refuse(
                "buckets are not read; name the object's http:// address behind a proxy, or copy it into a file and name that with file:PATH",
            ),
            other => refuse(&format!("the provider is `{other}`, expected file, http or grpc")),
        }
    }

    fn file(self) -> Source {
        let path = self.uri.strip_prefix("file:").unwrap_or(&self.uri).to_owned();
        Source { place: Place::File(PathBuf::from(&path)), name: path }
    }

    fn http(self) -> Result<Source, Refused> {
        let Self { uri: name, interval_s, bearer_token, auth_header, cert_path, .. } = self;
        let uri = name.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
        let Some(uri) = uri.filter(|uri| [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme())) else {
            return Err(refused(&name, "found no address of a web server, expected http://HOST:PORT/PATH"));
        };
        if let Some(host) = uri.authority().and_then(without_user) {
            return Err(refused(host, "found a user or a password in the address, expected them in `authHeader`"));
        }
        let roots = (uri.scheme() == Some(&Scheme::HTTPS)).then(|| Roots::of(&cert_path));
        let authorization = match (bearer_token, auth_header) {
            (Some(_), Some(_)) => return Err(refused(&name, "found `bearerToken` and `authHeader`, expected one of them")),
            (Some(token), None) => Some(Secret(format!("Bearer {token}"))),
            (None, header) => header.map(Secret),
        };
        let interval = interval_s.map_or(INTERVAL, Duration::from_secs);
        Ok(Source { name, place: Place::Http(Server { uri, roots, interval, authorization }) })
    }

    fn grpc(self) -> Result<Source, Refused> {
        let Self { uri, provider_id, selector, max_message, cert_path, tls, .. } = self;
        let by_tls = uri.strip_prefix("grpcs://");
        let roots = (tls || by_tls.is_some()).then(|| Roots::of(&cert_path));
        if roots.is_none() && !cert_path.is_empty() {
            return Err(refused(&uri, "found `certPath` without TLS, expected `tls` to be true or grpcs://HOST:PORT beside it"));
        }
        let name = by_tls.or_else(|| uri.strip_prefix("grpc://")).unwrap_or(&uri).to_owned();
        let authority = name.parse::<Authority>().ok().filter(|authority| authority.port().is_some());
        let Some(authority) = authority else {
            return Err(refused(
                &uri,
                "found no address of a sync service, expected grpc://HOST:PORT (no other name resolver is supported)",
            ));
        };
        if let Some(host) = without_user(&authority) {
            return Err(refused(host, "found a user in the address, which a sync service does not ask for"));
        }
        Ok(Source { name, place: Place::Grpc(Peer { authority, roots, provider_id, selector, max_message }) })
    }
}

/// The rest of an address that has a user in it: it would stand in logs, in `/readyz` and in the flags.
fn without_user(authority: &Authority) -> Option<&str> {
    authority.as_str().rsplit_once('@').map(|(_, host)| host)
}

/// Without the value.
fn hidden(source: &str, name: &str) -> Refused {
    refused(source, format!("`{name}` is no text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(source: Json) -> Result<Source, Refused> {
        Source::all_of_json(&json!([source])).map(|mut all| all.remove(0))
    }

    #[test]
    fn a_uri_says_its_kind() {
        let file = Source::of_uri("file:flags/a.json").unwrap();
        assert_eq!((file.name.as_str(), file.place), ("flags/a.json", Place::File("flags/a.json".into())));
        assert!(matches!(Source::of_uri("http://flags/a.json").unwrap().place, Place::Http(_)));
        let grpc = Source::of_uri("grpc://flags:8015").unwrap();
        assert_eq!(grpc.name, "flags:8015");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for uri in ["https://ana:secret@host/flags.json", "grpc://ana:secret@host:8015"] {
            let refused = Source::of_uri(uri).unwrap_err().to_string();
            assert!(refused.contains("host") && !refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_to_do_instead() {
        for (uri, instead) in [
            ("core.openfeature.dev/default/flags", "ConfigMap"),
            ("gs://bucket/flags.json", "file:PATH"),
            ("s3://bucket/flags.json", "file:PATH"),
            ("azblob://bucket/flags.json", "file:PATH"),
            ("envoy://flags:8015/name", "file:PATH"),
            ("flags.json", "file:PATH"),
            ("grpc://flags", "grpc://HOST:PORT"),
        ] {
            let refused = Source::of_uri(uri).unwrap_err().to_string();
            assert!(refused.contains(instead) && refused.contains(uri), "{refused}");
        }
    }

    #[test]
    fn a_source_has_flagds_fields() {
        let source = one(json!({ "uri": "http://a/b", "provider": "http", "interval": 30, "bearerToken": "t" })).unwrap();
        let Place::Http(server) = source.place else { panic!("{source:?}") };
        assert_eq!((server.interval.as_secs(), server.authorization.as_ref().unwrap().0.as_str()), (30, "Bearer t"));
        assert!(!format!("{server:?}").contains("Bearer"), "a token is shown");
        let source = one(json!({ "uri": "a:1", "provider": "grpc", "providerID": "p", "selector": "s", "maxMsgSize": 9 })).unwrap();
        let Place::Grpc(peer) = source.place else { panic!("{source:?}") };
        assert_eq!((peer.provider_id.as_str(), peer.selector.as_str(), peer.max_message), ("p", "s", Some(9)));
        assert!(one(json!({ "URI": "x.json", "Provider": "file" })).is_ok(), "names of a configuration have any case");
    }

    #[test]
    fn tls_is_what_the_uri_or_the_fields_say() {
        let roots = |source: Source| match source.place {
            Place::Http(server) => server.roots,
            Place::Grpc(peer) => peer.roots,
            Place::File(_) => None,
        };
        let grpc = Source::of_uri("grpcs://flags:8015").unwrap();
        assert_eq!((grpc.name.as_str(), roots(grpc.clone())), ("flags:8015", Some(Roots::System)));
        assert_eq!(roots(Source::of_uri("https://flags/a.json").unwrap()), Some(Roots::System));
        assert_eq!(roots(Source::of_uri("grpc://flags:8015").unwrap()), None);
        let file = Some(Roots::File("ca.pem".into()));
        for fields in [
            json!({ "uri": "x:1", "provider": "grpc", "tls": true, "certPath": "ca.pem" }),
            json!({ "uri": "grpcs://x:1", "provider": "grpc", "certPath": "ca.pem" }),
            json!({ "uri": "https://x", "provider": "http", "certPath": "ca.pem" }),
        ] {
            assert_eq!(roots(one(fields.clone()).unwrap()), file, "{fields}");
        }
    }

    #[test]
    fn a_source_that_is_wrong_is_refused_by_name() {
        for (source, named) in [
            (json!({ "uri": "x.json" }), "provider"),
            (json!({ "provider": "file" }), "uri"),
            (json!({ "uri": "x", "provider": "etcd" }), "etcd"),
            (json!({ "uri": "http://x", "provider": "http", "interval": 0 }), "interval"),
            (json!({ "uri": "http://x", "provider": "http", "bearerToken": "a", "authHeader": "b" }), "authHeader"),
            (json!({ "uri": "x:1", "provider": "grpc", "certPath": "ca.pem" }), "`tls`"),
            (json!({ "uri": "grpcs://x", "provider": "grpc" }), "grpc://HOST:PORT"),
            (json!({ "uri": "http://x", "provider": "http", "oauth": {} }), "bearerToken"),
            (json!("x"), "object"),
        ] {
            let refused = one(source.clone()).unwrap_err().to_string();
            assert!(refused.contains(named), "{source}: {refused}");
        }
        assert!(Source::all_of_json(&json!({})).is_err());
    }
}
