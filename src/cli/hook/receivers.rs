//! What is pasted into an alerting system so that it reaches a hook. The token goes into the header and not into the URL, which both show
//! to whoever may look at their settings.

/// An entry of `receivers` in Alertmanager's configuration. Resolved alerts would be ignored, so they are not sent; and of a storm twenty
/// alerts are enough.
pub(super) fn alertmanager(flag: &str, url: &str, token: &str) -> String {
    format!(
        "- name: yardarm-{flag}
  webhook_configs:
  - url: {url}
    send_resolved: false
    max_alerts: 20
    http_config:
      authorization:
        type: Bearer
        credentials: {token}
"
    )
}

/// A file of Grafana's provisioning.
pub(super) fn grafana(flag: &str, url: &str, token: &str) -> String {
    format!(
        "apiVersion: 1
contactPoints:
- orgId: 1
  name: yardarm-{flag}
  receivers:
  - uid: {uid}
    type: webhook
    disableResolveMessage: true
    settings:
      url: {url}
      httpMethod: POST
      maxAlerts: \"20\"
      authorization_scheme: Bearer
      authorization_credentials: {token}
",
        uid = uid(flag)
    )
}

/// Grafana takes at most 40 letters, digits, hyphens and underscores.
fn uid(flag: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    format!("yardarm-{flag}").chars().map(allowed).take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const URL: &str = "http://127.0.0.1:8021/hooks/v1/prod/new.checkout/0123456789ab";

    #[test]
    fn what_is_pasted_is_yaml_with_the_url_and_the_token_apart() {
        let receivers: Value = serde_yaml_ng::from_str(&alertmanager("new.checkout", URL, "t0ken")).unwrap();
        let webhook = &receivers[0]["webhook_configs"][0];
        assert_eq!((&webhook["url"], &webhook["http_config"]["authorization"]["credentials"]), (&URL.into(), &"t0ken".into()));

        let file: Value = serde_yaml_ng::from_str(&grafana("new.checkout", URL, "t0ken")).unwrap();
        let receiver = &file["contactPoints"][0]["receivers"][0];
        assert_eq!(receiver["uid"], "yardarm-new-checkout");
        let settings = &receiver["settings"];
        assert_eq!((&settings["url"], &settings["authorization_credentials"]), (&URL.into(), &"t0ken".into()));
    }

    #[test]
    fn a_long_key_gives_a_uid_that_grafana_takes() {
        assert_eq!(uid(&"k".repeat(128)).len(), 40);
    }
}
