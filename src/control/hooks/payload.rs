//! What alerting systems send, read into alerts. What is wrong is told with its path.
//!
//! Alertmanager and Grafana alerting send a group: `{"alerts": [{"status", "labels", "annotations", "startsAt", "fingerprint"}, …]}`, with
//! more around it that nobody needs to kill a flag. Everybody else sends one alert:
//!
//! ```json
//! {"id": "incident-4711", "at": "2026-11-21T03:34:03Z", "status": "firing", "name": "checkout is slow", "summary": "p99 4 s",
//!  "labels": {"region": "eu"}}
//! ```
//! `id` and `at` are what the alert is known by and must be there. Without a status it fires.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::control::ledger::{Alert, AlertState};

/// Bytes of a name by which an alert is known.
const NAME_BYTES: usize = 1 << 10;

/// What is wrong with a payload, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// As `alerts[1].startsAt`; empty for the whole.
    pub path: String,
    pub problem: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        if path.is_empty() { write!(f, "the payload {problem}") } else { write!(f, "{path}: {problem}") }
    }
}

pub fn parse(body: &[u8]) -> Result<Vec<Alert>, Malformed> {
    let payload: Value = serde_json::from_slice(body).or_else(|problem| malformed("", format!("is no JSON: {problem}")))?;
    let payload = Place { path: String::new(), value: Some(&payload) };
    let fields = payload.object()?;
    match fields.get("alerts") {
        Some(_) => payload.field("alerts").list()?.iter().map(of_group).collect(),
        None if ["id", "at"].iter().any(|name| fields.contains_key(*name)) => Ok(vec![alone(&payload)?]),
        None => malformed("", "has neither `alerts`, as from Alertmanager and Grafana, nor `id` and `at`".to_owned()),
    }
}

fn of_group(alert: &Place<'_>) -> Result<Alert, Malformed> {
    let labels = alert.field("labels").texts()?;
    let annotations = alert.field("annotations").texts()?;
    let label = |name: &str| labels.get(name).map(String::as_str);
    let name = label("alertname").unwrap_or("without a name").to_owned();
    let annotation = |name: &str| annotations.get(name).filter(|text| !text.is_empty());
    let summary = annotation("summary").or_else(|| annotation("description")).cloned().unwrap_or_default();
    let state = match (alert.state()?, label("alertname"), label("instance")) {
        // What Grafana sends when it could not ask its data source, and when somebody presses its button for a test.
        (AlertState::Firing, Some("DatasourceNoData" | "DatasourceError"), _) => AlertState::NoData,
        (AlertState::Firing, Some("TestAlert"), Some("Grafana")) => AlertState::Test,
        (state, ..) => state,
    };
    let (fingerprint, began_us) = (alert.field("fingerprint").name()?, alert.field("startsAt").time()?);
    Ok(Alert { name, fingerprint, began_us, state, labels, summary })
}

fn alone(alert: &Place<'_>) -> Result<Alert, Malformed> {
    let fingerprint = alert.field("id").name()?;
    Ok(Alert {
        name: alert.field("name").text()?.unwrap_or(&fingerprint).to_owned(),
        began_us: alert.field("at").time()?,
        state: alert.state()?,
        labels: alert.field("labels").texts()?,
        summary: alert.field("summary").text()?.unwrap_or_default().to_owned(),
        fingerprint,
    })
}

/// A value and the way to it. A value that is `null` is not there.
struct Place<'v> {
    path: String,
    value: Option<&'v Value>,
}

impl<'v> Place<'v> {
    fn field(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let value = self.value.and_then(|value| value.get(name)).filter(|value| !value.is_null());
        Self { path, value }
    }

    fn object(&self) -> Result<&'v Map<String, Value>, Malformed> {
        match self.value {
            Some(Value::Object(fields)) => Ok(fields),
            _ => self.expected("an object"),
        }
    }

    fn list(&self) -> Result<Vec<Self>, Malformed> {
        let Some(Value::Array(values)) = self.value else { return self.expected("a list of alerts") };
        let place = |(at, value): (usize, &'v Value)| Self { path: format!("{}[{at}]", self.path), value: Some(value) };
        let places: Vec<_> = values.iter().enumerate().map(place).collect();
        places.iter().try_for_each(|place| place.object().map(drop))?;
        Ok(places)
    }

    fn text(&self) -> Result<Option<&'v str>, Malformed> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => self.expected("a text"),
        }
    }

    fn name(&self) -> Result<String, Malformed> {
        match self.text()? {
            Some(name) if !name.is_empty() && name.len() <= NAME_BYTES => Ok(name.to_owned()),
            _ => self.expected(&format!("a text of 1 to {NAME_BYTES} bytes that tells this alert from others")),
        }
    }

    fn time(&self) -> Result<i64, Malformed> {
        let time = self.text()?.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map_or_else(|| self.expected("a time as 2026-11-21T03:34:03Z"), |time| Ok(time.as_microsecond()))
    }

    fn state(&self) -> Result<AlertState, Malformed> {
        let status = self.field("status");
        match status.text()? {
            None | Some("firing" | "alerting") => Ok(AlertState::Firing),
            Some("resolved" | "ok") => Ok(AlertState::Resolved),
            Some(_) => status.expected("\"firing\" or \"resolved\""),
        }
    }

    fn texts(&self) -> Result<BTreeMap<String, String>, Malformed> {
        if self.value.is_none() {
            return Ok(BTreeMap::new());
        }
        let text = |name: &String| Ok((name.clone(), self.field(name).text()?.unwrap_or_default().to_owned()));
        self.object()?.keys().map(text).collect()
    }

    fn expected<T>(&self, expected: &str) -> Result<T, Malformed> {
        let found = match self.value {
            None => "nothing".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(other) => other.to_string().chars().take(60).collect(),
        };
        malformed(&self.path, format!("found {found}, expected {expected}"))
    }
}

fn malformed<T>(path: &str, problem: String) -> Result<T, Malformed> {
    Err(Malformed { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERTMANAGER: &str = include_str!("samples/alertmanager.json");
    const GRAFANA: &str = include_str!("samples/grafana.json");

    fn refused(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_alertmanager_sends_is_understood() {
        let alerts = parse(ALERTMANAGER.as_bytes()).unwrap();
        let [firing, resolved] = &alerts[..] else { panic!("{alerts:?}") };
        assert_eq!((firing.name.as_str(), firing.fingerprint.as_str()), ("CheckoutErrorRate", "c0ffee1234567890"));
        assert_eq!((firing.state, firing.began_us), (AlertState::Firing, 1_795_231_929_431_000));
        assert_eq!((firing.summary.as_str(), firing.labels["severity"].as_str()), ("5xx of checkout above 4 %", "page"));
        assert_eq!(resolved.state, AlertState::Resolved);
    }

    #[test]
    fn what_grafana_sends_is_understood() {
        let alerts = parse(GRAFANA.as_bytes()).unwrap();
        let states: Vec<_> = alerts.iter().map(|alert| (alert.name.as_str(), alert.state)).collect();
        let expected = [
            ("Checkout latency", AlertState::Firing),
            ("Checkout latency", AlertState::Resolved),
            ("DatasourceNoData", AlertState::NoData),
            ("TestAlert", AlertState::Test),
        ];
        assert_eq!(states, expected);
        assert_eq!(alerts[0].summary, "p99 above 2 s for five minutes");
    }

    #[test]
    fn one_alert_of_anybody_is_understood() {
        let alerts = parse(br#"{"id":"incident-4711","at":"2026-11-21T05:34:03+02:00"}"#).unwrap();
        let expected = Alert {
            name: "incident-4711".into(),
            fingerprint: "incident-4711".into(),
            began_us: 1_795_232_043_000_000,
            state: AlertState::Firing,
            labels: BTreeMap::new(),
            summary: String::new(),
        };
        assert_eq!(alerts, [expected]);
        let whole = r#"{"id":"1","at":"2026-11-21T03:34:03Z","status":"resolved","name":"slow","summary":"p99","labels":{"a":"b"}}"#;
        let alert = parse(whole.as_bytes()).unwrap().remove(0);
        let said = (alert.name.as_str(), alert.state, alert.summary.as_str(), alert.labels["a"].as_str());
        assert_eq!(said, ("slow", AlertState::Resolved, "p99", "b"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        for (body, told) in [
            ("", "the payload is no JSON: EOF"),
            ("[]", "the payload found a list, expected an object"),
            ("{}", "the payload has neither `alerts`"),
            (r#"{"alerts":{}}"#, "alerts: found an object, expected a list of alerts"),
            (r#"{"alerts":[7]}"#, "alerts[0]: found 7, expected an object"),
            (r#"{"alerts":[{"status":"firing","startsAt":"2026-11-21T03:34:03Z"}]}"#, "alerts[0].fingerprint: found nothing"),
            (r#"{"alerts":[{"fingerprint":"a","startsAt":"soon"}]}"#, "alerts[0].startsAt: found \"soon\", expected a time as 20"),
            (r#"{"alerts":[{"status":"odd"}]}"#, "alerts[0].status: found \"odd\", expected \"firing\" or \"resolved\""),
            (r#"{"alerts":[{"labels":{"a":1}}]}"#, "alerts[0].labels.a: found 1, expected a text"),
            (r#"{"at":"2026-11-21T03:34:03Z"}"#, "id: found nothing, expected a text of 1 to 1024 bytes"),
            (r#"{"id":"","at":"2026-11-21T03:34:03Z"}"#, "id: found \"\", expected a text"),
            (r#"{"id":"1"}"#, "at: found nothing, expected a time"),
            (r#"{"id":"1","at":1795232043}"#, "at: found 1795232043, expected a text"),
        ] {
            let found = refused(body);
            assert!(found.starts_with(told), "{body}\nwas told {found}");
        }
        let long = format!(r#"{{"id":"{}","at":"2026-11-21T03:34:03Z"}}"#, "x".repeat(NAME_BYTES + 1));
        assert!(refused(&long).starts_with("id: found \"xxx"), "{}", refused(&long));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(refused(&deep).contains("recursion limit"), "{}", refused(&deep));
    }
}
