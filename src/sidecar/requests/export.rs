//! The tables of all threads, in flagd's words.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tonic::Code;

use crate::sidecar::dialect::connect_code;
use crate::sidecar::histogram::Histogram;
use crate::sidecar::pod::Desk;

use super::route::Route;
use super::table::{Calls, Http, Place, Sizes, System, Table};

type Label = (&'static str, String);

pub(in crate::sidecar) struct Requests(pub(in crate::sidecar) Vec<Arc<Desk>>);

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut total = Table::default();
        for requests in self.0.iter().filter_map(|desk| desk.requests.as_ref()) {
            total.add(&requests.lock());
        }
        let encoder = &mut encoder;
        active(encoder, &total)?;
        type OfHttp = fn(&Http) -> &Histogram;
        for (name, help, of) in [
            ("request_duration_seconds", "Duration of HTTP requests, by the status of their answer", (|http| &http.seconds) as OfHttp),
            ("request_body_size_bytes", "Bytes of the bodies of HTTP requests", |http| &http.request_bytes),
            ("response_body_size_bytes", "Bytes of the bodies of HTTP answers", |http| &http.response_bytes),
        ] {
            let series = total.http.iter().map(|((place, status), http)| (of_http(*place, Some(*status)), of(http)));
            family(encoder, &format!("http_server_{name}"), help, series)?;
        }
        type OfCalls = fn(&Calls) -> &Histogram;
        for (name, help, of) in [
            ("duration_milliseconds", "Duration of calls, by how they ended", (|calls| &calls.milliseconds) as OfCalls),
            ("requests_per_rpc", "Messages that a call asked with", |calls| &calls.requests),
            ("responses_per_rpc", "Messages that a call was answered with", |calls| &calls.responses),
        ] {
            let series = total.calls.iter().map(|((route, system, code), calls)| (of_call(*route, *system, Some(*code)), of(calls)));
            family(encoder, &format!("rpc_server_{name}"), help, series)?;
        }
        type OfSizes = fn(&Sizes) -> &Histogram;
        for (name, help, of) in [
            ("request_size_bytes", "Bytes of the messages that calls asked with", (|sizes| &sizes.request) as OfSizes),
            ("response_size_bytes", "Bytes of the messages that calls were answered with", |sizes| &sizes.response),
        ] {
            let series = total.sizes.iter().map(|((route, system), sizes)| (of_call(*route, *system, None), of(sizes)));
            family(encoder, &format!("rpc_server_{name}"), help, series)?;
        }
        Ok(())
    }
}

fn active(encoder: &mut DescriptorEncoder<'_>, total: &Table) -> fmt::Result {
    let help = "HTTP requests that are being answered";
    let mut family = encoder.encode_descriptor("http_server_active_requests", help, None, MetricType::Gauge)?;
    for (place, count) in total.active.iter().filter(|(place, _)| place.route.is_http()) {
        ConstGauge::new(*count).encode(family.encode_family(&of_http(*place, None))?)?;
    }
    Ok(())
}

fn family<'h>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Vec<Label>, &'h Histogram)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, histogram) in series {
        histogram.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A request without an answer has no status.
fn of_http(place: Place, status: Option<u16>) -> Vec<Label> {
    let Place { route, verb, is_encrypted } = place;
    let status = status.filter(|status| *status != 0).map(|status| ("http_response_status_code", status.to_string()));
    let route = Some(route.template()).filter(|template| !template.is_empty()).map(|template| ("http_route", template));
    let scheme = if is_encrypted { "https" } else { "http" };
    let constant = [("http_request_method", verb.to_owned()), ("service_name", "flagd".to_owned()), ("url_scheme", scheme.to_owned())];
    constant.into_iter().chain(status).chain(route).collect()
}

/// Connect has a code for what failed only, and in words.
fn of_call(route: Route, system: System, code: Option<i32>) -> Vec<Label> {
    let (service, method) = route.call().unwrap_or_default();
    let code = code.and_then(|code| match system {
        System::Grpc => Some(("rpc_grpc_status_code", code.to_string())),
        System::GrpcWeb => Some(("rpc_grpc_web_status_code", code.to_string())),
        System::Connect if code == Code::Ok as i32 => None,
        System::Connect => Some(("rpc_connect_rpc_error_code", connect_code(Code::from_i32(code)).0.to_owned())),
    });
    let constant = [("rpc_method", method), ("rpc_service", service), ("rpc_system", system.name())];
    constant.into_iter().map(|(name, value)| (name, value.to_owned())).chain(code).collect()
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("threads", &self.0.len()).finish()
    }
}
