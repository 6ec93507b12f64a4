//! Every way to log in, against one real broker that asks its clients for a certificate as well.

use alluvium::error::Kind;

use super::{Lake, Pipe, failed, numbered, values};
use crate::support::certificates::Certificates;
use crate::support::kafka::{Broker, Door};

#[tokio::test(flavor = "multi_thread")]
async fn k21_each_mechanism_logs_in_over_tls_with_a_certificate_and_a_locked_key() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(&folder.path().join("certificates"));
    let (ca, (certificate, key)) = (certificates.ca().display().to_string(), certificates.client());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let locked = certificates.locked_key("opensesame").display().to_string();

    let listener = "listener.name.client";
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"admin\" password=\"admin\" \
                 user_admin=\"admin\" user_reader=\"right\";";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let properties = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={ca}\n\
         {listener}.ssl.client.auth=required\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
         {listener}.plain.sasl.jaas.config={plain}\n{listener}.scram-sha-256.sasl.jaas.config={scram}\n\
         {listener}.scram-sha-512.sasl.jaas.config={scram}\n",
        certificates.server_pem().display(),
    );
    let door = Door {
        protocol: "SASL_SSL",
        login: &[
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &ca),
            ("ssl.certificate.location", &certificate),
            ("ssl.key.location", &key),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "admin"),
            ("sasl.password", "admin"),
        ],
        scram: &[
            "SCRAM-SHA-256=[name=reader,password=right]",
            "SCRAM-SHA-512=[name=reader,password=right]",
        ],
    };
    let broker = Broker::start_secured(door, &properties);
    let topic = broker.topic("logins", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));

    let secret = |text: &str| {
        let file = folder.path().join(text);
        std::fs::write(&file, text).unwrap();
        format!("{{ file = \"{}\" }}", file.display())
    };
    let sasl = |mechanism: &str, password: &str| {
        let password = secret(password);
        format!("sasl = {{ mechanism = \"{mechanism}\", username = \"reader\", password = {password} }}\n")
    };
    let with_key = |password: &str| {
        let password = secret(password);
        format!("tls = {{ ca = \"{ca}\", certificate = \"{certificate}\", key = \"{locked}\", key_password = {password} }}\n")
    };
    let pipe = |more: String| Pipe::try_new(&broker.bootstrap(), &more, &[("a", &topic)]);

    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut lake = Lake::default();
        let right = pipe(with_key("opensesame") + &sasl(mechanism, "right")).unwrap();
        right
            .catch_up(&mut lake)
            .await
            .unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        assert_eq!(lake.values("a", 0), values(0, 10), "{mechanism}");

        let wrong = pipe(with_key("opensesame") + &sasl(mechanism, "wrong")).unwrap();
        let error = failed(wrong.open(&Lake::default()).await);
        assert_eq!((error.kind, error.code), (Kind::Config, "broker_denied"), "{mechanism}: {error}");
    }
    let nobody = pipe(format!("tls = {{ ca = \"{ca}\" }}\n") + &sasl("PLAIN", "right")).unwrap();
    let error = failed(nobody.open(&Lake::default()).await);
    println!("without a certificate: {error}");
    assert!(error.what.contains("kafka.tls"), "{error}");
    let error = failed(pipe(with_key("guessed") + &sasl("PLAIN", "right")));
    assert_eq!(error.kind, Kind::Config, "{error}");
    assert!(!error.what.contains("guessed"), "{error}");
}
