//! The properties that librdkafka knows, asked of itself.

use std::ffi::CStr;

use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::{Text, suggestion};

/// Texts that nobody may mean to leave unset: librdkafka lists only what has a value.
const UNSET: &[&str] = &[
    "group.instance.id",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.sigalgs.list",
];

/// What is wrong with a property by itself: there is none of that name, or it cannot have that value. Nothing is said of secrets that are
/// missing, and none is printed.
pub(in crate::sources::kafka) fn misfit(name: &str, value: &Text) -> Option<String> {
    let made = ClientConfig::new().set(name, value.reveal().ok()?).create_native_config();
    Some(match (made.err()?, value) {
        (KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..), _) => {
            let names = names();
            let names = names.iter().map(String::as_str).chain(UNSET.iter().copied());
            format!("librdkafka knows no such property{}", suggestion(name, names))
        }
        (KafkaError::ClientConfig(_, reason, ..), Text::Plain(_)) => format!("librdkafka refuses it: {}", reason.trim()),
        _ => "librdkafka refuses its value".to_owned(),
    })
}

/// The names of all properties that have a value by default.
fn names() -> Vec<String> {
    let Ok(config) = ClientConfig::new().create_native_config() else {
        return Vec::new();
    };
    let mut count = 0;
    // SAFETY: the configuration lives during the call, and the list of names and values is given back once, behind its last use.
    unsafe {
        let list = native::rd_kafka_conf_dump(config.ptr(), &mut count);
        let names = (0..count)
            .step_by(2)
            .map(|at| CStr::from_ptr(*list.add(at)).to_string_lossy().into_owned())
            .collect();
        native::rd_kafka_conf_dump_free(list, count);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_misspelt_name_and_a_wrong_value_are_told_with_what_librdkafka_knows() {
        let plain = |name: &str, value: &str| misfit(name, &Text::Plain(value.to_owned()));
        assert_eq!(plain("fetch.wait.max.ms", "5"), None);
        assert_eq!(plain("group.instance.id", "a"), None);
        assert_eq!(plain("max.partition.fetch.bytes", "100000"), None, "another name of one");
        for (name, near) in [
            ("fetch.wait.max", "fetch.wait.max.ms"),
            ("sesion.timeout.ms", "session.timeout.ms"),
            ("group.instance_id", "group.instance.id"),
        ] {
            let told = plain(name, "1").unwrap();
            assert_eq!(told, format!("librdkafka knows no such property; did you mean `{near}`?"));
        }
        for (name, value) in [
            ("fetch.wait.max.ms", "soon"),
            ("fetch.wait.max.ms", "-1"),
            ("broker.address.family", "v5"),
        ] {
            let told = plain(name, value).unwrap();
            assert!(told.contains("refuses it") && told.contains(name), "{told}");
        }
        for name in UNSET {
            assert!(plain(name, "x").is_none_or(|told| !told.contains("no such")), "{name}");
        }
    }

    #[test]
    fn x1_a_secret_that_is_refused_is_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "hunter2").unwrap();
        let told = misfit("session.timeout.ms", &Text::Secret(Secret::File(file.path().to_owned()))).unwrap();
        assert!(!told.contains("hunter2"), "{told}");
    }
}
