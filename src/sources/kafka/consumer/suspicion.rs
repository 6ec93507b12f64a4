//! What the end of a connection says about how it was to be secured.
//!
//! A broker that expects TLS, a certificate or a login tells nobody so: it hangs up. But when it does tells, and librdkafka names the state
//! that the connection was in. The words are those of librdkafka 2.12 and OpenSSL 3, as real brokers make them say.

/// A broker that hangs up sooner than this has hardly been asked for anything.
const SOON_MS: u64 = 2000;

/// What to look at in the configuration. A broker that is being started or stopped hangs up as well: no reason to give up.
pub(super) fn suspicion(reason: &str) -> Option<&'static str> {
    let (after_ms, state) = state(reason)?;
    // The name of a connection begins with how it is secured, and with a word where it is one to a coordinator, which others come before.
    let (tls, login) = (reason.contains("ssl://"), reason.contains("sasl_"));
    let coordinator = reason.starts_with("GroupCoordinator");
    let hung_up = ["Disconnected", "Broken pipe", "reset by peer", "Invalid response size"];
    if coordinator || !hung_up.iter().any(|word| reason.contains(word)) {
        return None;
    }
    match state {
        "SSL_HANDSHAKE" => {
            Some("A broker that ends the TLS handshake may speak PLAINTEXT: then leave out `kafka.tls`, or name the port that speaks TLS.")
        }
        "APIVERSION_QUERY" if tls => Some(
            "A broker that hangs up right after the TLS handshake may want a certificate: then set `kafka.tls.certificate` and \
             `kafka.tls.key`.",
        ),
        "APIVERSION_QUERY" => {
            Some("A broker that hangs up at the first question may expect TLS: then set `kafka.tls = {}`, or name the port without.")
        }
        "UP" if !login && after_ms < SOON_MS => {
            Some("A broker that hangs up on whom it does not know may expect a login: then set `kafka.sasl`, or name the port without.")
        }
        _ => None,
    }
}

/// Where certificates are at fault: what to do about it.
pub(super) fn distrust(reason: &str) -> Option<&'static str> {
    if reason.contains("certificate verify failed") || reason.contains("verify broker certificate") {
        Some(
            "`kafka.tls.ca` must name who signed the brokers' certificate, and the certificate must be for the host that is asked: the one \
             in `kafka.brokers`, and those that the brokers name (advertised.listeners).",
        )
    } else if reason.contains("client SSL authentication might be required")
        || reason.contains(" alert ") && (reason.contains("certificate") || reason.contains("unknown ca"))
    {
        Some("They want a certificate that they trust: set `kafka.tls.certificate` and `kafka.tls.key`.")
    } else {
        None
    }
}

/// How long a connection was in the state in which it ended, and which that was.
fn state(reason: &str) -> Option<(u64, &str)> {
    let (_, end) = reason.rsplit_once("(after ")?;
    let (after_ms, state) = end.split_once("ms in state ")?;
    let state = state.split([',', ')']).next()?;
    Some((after_ms.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_broker_hangs_up_tells_what_it_may_have_expected() {
        let closed = "Disconnected: connection closed by peer: receive 0 after POLLIN";
        let cases = [
            (format!("b:9093/bootstrap: {closed} (after 54ms in state APIVERSION_QUERY)"), Some("kafka.tls = {}")),
            (
                format!("b:9093/bootstrap: {closed} (after 2ms in state APIVERSION_QUERY, 7 identical error(s) suppressed)"),
                Some("kafka.tls = {}"),
            ),
            (format!("sasl_plaintext://b:9095/bootstrap: {closed} (after 3ms in state APIVERSION_QUERY)"), Some("kafka.tls = {}")),
            (
                "b:9093/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes \
                 (after 1ms in state APIVERSION_QUERY)"
                    .to_owned(),
                Some("kafka.tls = {}"),
            ),
            (
                "ssl://b:9097/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in state APIVERSION_QUERY)".to_owned(),
                Some("kafka.tls.certificate"),
            ),
            (
                "ssl://b:9092/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker \
                 listener? (after 5ms in state SSL_HANDSHAKE)"
                    .to_owned(),
                Some("PLAINTEXT"),
            ),
            (format!("b:9094/bootstrap: {closed} (after 4ms in state UP)"), Some("kafka.sasl")),
            ("b:9094/bootstrap: Send failed: Broken pipe (after 4ms in state UP)".to_owned(), Some("kafka.sasl")),
            (
                "ssl://b:9095/bootstrap: Disconnected: SSL connection closed by peer (after 4ms in state UP)".to_owned(),
                Some("kafka.sasl"),
            ),
            // Brokers that go, and ones that are not there.
            (format!("b:9094/1: {closed} (after 54321ms in state UP)"), None),
            (format!("sasl_plaintext://b:9094/1: {closed} (after 5ms in state UP)"), None),
            (format!("GroupCoordinator: b:9094: {closed} (after 5ms in state UP)"), None),
            ("b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)".to_owned(), None),
            ("1/1 brokers are down".to_owned(), None),
        ];
        for (reason, hint) in cases {
            match (hint, suspicion(&reason)) {
                (None, None) => {}
                (Some(hint), Some(told)) => assert!(told.contains(hint), "{reason}: {told}"),
                (_, told) => panic!("{reason}: {told:?}"),
            }
        }
    }

    #[test]
    fn certificates_at_fault_are_told_from_connections_that_broke() {
        let verify = "ssl://b:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 4ms in state SSL_HANDSHAKE)";
        assert!(distrust(verify).is_some_and(|fix| fix.contains("kafka.tls.ca") && fix.contains("host")));
        let alert = "ssl://b:9097/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 \
                     (after 2ms in state APIVERSION_QUERY)";
        assert!(distrust(alert).is_some_and(|fix| fix.contains("kafka.tls.certificate")));
        assert_eq!(
            distrust("ssl://b:9092/1: Disconnected: SSL connection closed by peer (after 9ms in state UP)"),
            None
        );
    }
}
