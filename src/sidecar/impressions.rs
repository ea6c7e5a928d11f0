//! What is counted of evaluations under the names that flagd has for it (flagd.md 1.10), for dashboards that were made for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::flag::Reason;
use crate::wire::evaluation::flagd::counted;

use super::metrics::Evaluations;

#[derive(Debug)]
pub(super) struct Impressions(pub(super) Arc<Evaluations>);

impl Collector for Impressions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let total = self.0.total();
        // Several of our reasons are one of flagd's.
        let mut reasons: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
        let mut impressions: BTreeMap<(&str, &str, &'static str), u64> = BTreeMap::new();
        for (flag, series) in &total.flags {
            for one in series.iter().filter(|one| one.reason != Reason::Error) {
                let reason = counted(one.reason);
                *reasons.entry((flag, reason)).or_default() += one.count;
                *impressions.entry((flag, &one.variant, reason)).or_default() += one.count;
            }
        }
        let help = "Evaluations of a flag that gave one of its variants";
        let mut family = encoder.encode_descriptor("feature_flag_flagd_impression", help, None, MetricType::Counter)?;
        for ((flag, variant, reason), count) in impressions {
            let labels = [
                ("feature_flag_key", flag),
                ("feature_flag_result_variant", variant),
                ("feature_flag_provider_name", "flagd"),
                ("feature_flag_reason", reason),
            ];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let mut family =
            encoder.encode_descriptor("feature_flag_flagd_result_reason", "Evaluations by their reason", None, MetricType::Counter)?;
        for ((flag, reason), count) in reasons {
            let labels = [("feature_flag_key", flag), ("feature_flag_provider_name", "flagd"), ("feature_flag_reason", reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        for (code, count) in &total.errors {
            // flagd's name for the label is this one, whatever its conventions say.
            let labels =
                [("ExceptionTypeKeyName", code.as_str()), ("feature_flag_provider_name", "flagd"), ("feature_flag_reason", "ERROR")];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
