//! The options of object stores, by the names that the `object_store` crate gives them: which store knows which, and what is wrong with them,
//! so that all of it can be told before a table is opened.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use crate::config::suggestion;

/// A service of object stores that has options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    S3,
    Google,
    Azure,
}

/// Whether the variables of the environment count as well, behind the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Environment {
    Counts,
    IsLeftOut,
}

impl Service {
    const ALL: [Service; 3] = [Service::S3, Service::Google, Service::Azure];

    /// None for folders of this machine, which have no options.
    pub fn of(place: &Url) -> Option<Self> {
        match ObjectStoreScheme::parse(place).ok()?.0 {
            ObjectStoreScheme::AmazonS3 => Some(Service::S3),
            ObjectStoreScheme::GoogleCloudStorage => Some(Service::Google),
            ObjectStoreScheme::MicrosoftAzure => Some(Service::Azure),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Service::S3 => "S3",
            Service::Google => "Google's store",
            Service::Azure => "Azure's store",
        }
    }

    pub fn knows(self, option: &str) -> bool {
        match self {
            Service::S3 => option.parse::<AmazonS3ConfigKey>().is_ok(),
            Service::Google => option.parse::<GoogleConfigKey>().is_ok(),
            Service::Azure => option.parse::<AzureConfigKey>().is_ok(),
        }
    }

    /// What people may have meant: of options with several names one, and those of all services. The crate has no list of them.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let own: &[&str] = match self {
            Service::S3 => &S3_NAMES,
            Service::Google => &GOOGLE_NAMES,
            Service::Azure => &AZURE_NAMES,
        };
        own.iter().chain(&NAMES_OF_ALL).copied()
    }

    /// A place of the service that needs no option.
    fn bare_place(self) -> &'static str {
        match self {
            Service::S3 => "s3://bucket/",
            Service::Google => "gs://bucket/",
            Service::Azure => "abfss://container@account.dfs.core.windows.net/",
        }
    }

    /// The store of a place, with those of the options that the service knows: others are for tables at other places.
    pub fn open(
        self,
        place: &str,
        options: &BTreeMap<String, String>,
        environment: Environment,
    ) -> object_store::Result<Arc<dyn ObjectStore>> {
        let counts = environment == Environment::Counts;
        match self {
            Service::S3 if counts => built(AmazonS3Builder::from_env().with_url(place), options),
            Service::S3 => built(AmazonS3Builder::new().with_url(place), options),
            Service::Google if counts => built(GoogleCloudStorageBuilder::from_env().with_url(place), options),
            Service::Google => built(GoogleCloudStorageBuilder::new().with_url(place), options),
            Service::Azure if counts => built(MicrosoftAzureBuilder::from_env().with_url(place), options),
            Service::Azure => built(MicrosoftAzureBuilder::new().with_url(place), options),
        }
    }
}

const S3_NAMES: [&str; 28] = [
    "aws_access_key_id",
    "aws_bucket",
    "aws_checksum_algorithm",
    "aws_conditional_put",
    "aws_container_authorization_token_file",
    "aws_container_credentials_full_uri",
    "aws_container_credentials_relative_uri",
    "aws_copy_if_not_exists",
    "aws_default_region",
    "aws_disable_tagging",
    "aws_endpoint",
    "aws_endpoint_url_sts",
    "aws_imdsv1_fallback",
    "aws_metadata_endpoint",
    "aws_region",
    "aws_request_payer",
    "aws_role_arn",
    "aws_role_session_name",
    "aws_s3_express",
    "aws_secret_access_key",
    "aws_server_side_encryption",
    "aws_session_token",
    "aws_skip_signature",
    "aws_sse_bucket_key_enabled",
    "aws_sse_kms_key_id",
    "aws_unsigned_payload",
    "aws_virtual_hosted_style_request",
    "aws_web_identity_token_file",
];
const GOOGLE_NAMES: [&str; 6] = [
    "google_application_credentials",
    "google_base_url",
    "google_bucket",
    "google_service_account",
    "google_service_account_key",
    "google_skip_signature",
];
const AZURE_NAMES: [&str; 18] = [
    "azure_storage_account_key",
    "azure_storage_account_name",
    "azure_storage_authority_host",
    "azure_storage_client_id",
    "azure_storage_client_secret",
    "azure_storage_endpoint",
    "azure_storage_sas_key",
    "azure_storage_tenant_id",
    "azure_storage_token",
    "azure_storage_use_emulator",
    "azure_container_name",
    "azure_disable_tagging",
    "azure_federated_token_file",
    "azure_msi_endpoint",
    "azure_msi_resource_id",
    "azure_object_id",
    "azure_skip_signature",
    "azure_use_azure_cli",
];
const NAMES_OF_ALL: [&str; 18] = [
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "timeout",
    "user_agent",
];

/// How a reason begins that another option is missing: it has nothing of the value.
pub const LACKS: &str = "there is no";

/// What is wrong with the name of an option, given the places of all tables.
pub fn wrong_name(option: &str, places: &[Url]) -> Option<String> {
    let used: Vec<Service> = by_service(places).into_keys().collect();
    // Where all tables are folders no option counts: it may be there for a lake to come.
    let of = if used.is_empty() { Service::ALL.to_vec() } else { used };
    if of.iter().any(|service| service.knows(option)) {
        return None;
    }
    let services: Vec<&str> = of.iter().map(|service| service.name()).collect();
    let near = suggestion(option, of.iter().flat_map(|service| service.names()));
    Some(format!("not an option of {}{near}", services.join(" or ")))
}

/// What the stores of these places do not take: the option, or None where it is not any of them alone; and why. Nothing is asked of the stores.
pub fn wrong_values(options: &BTreeMap<String, String>, places: &[Url]) -> Vec<(Option<String>, String)> {
    let mut wrong = Vec::new();
    for (service, place) in by_service(places) {
        let mut rest = options.clone();
        // The crate tells the first fault, and not whose it is.
        while let Err(error) = service.open(place.as_str(), &rest, Environment::Counts) {
            let why = reason(&error);
            let is_of = |(name, value): &(&String, &String)| {
                let alone = BTreeMap::from([((*name).clone(), (*value).clone())]);
                let opened = service.open(service.bare_place(), &alone, Environment::IsLeftOut);
                opened.is_err_and(|error| reason(&error) == why)
            };
            let found: Vec<String> = rest.iter().filter(is_of).map(|(name, _)| name.clone()).collect();
            if found.is_empty() {
                wrong.push((None, why));
                break;
            }
            for name in found {
                rest.remove(&name);
                wrong.push((Some(name), why.clone()));
            }
        }
    }
    wrong
}

/// Of each service one place: its options are the same for all.
fn by_service(places: &[Url]) -> BTreeMap<Service, &Url> {
    places.iter().filter_map(|place| Some((Service::of(place)?, place))).collect()
}

/// Without the crate's "Generic S3 error", where there is more to say, and with the options' own names.
fn reason(error: &object_store::Error) -> String {
    let text = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    match text.as_str() {
        "Missing AccessKeyId" => format!("{LACKS} `aws_access_key_id`"),
        "Missing SecretAccessKey" => format!("{LACKS} `aws_secret_access_key`"),
        _ => text,
    }
}

/// What the builders of the three services have in common.
trait Builder: Sized {
    type Key: FromStr;
    fn with(self, key: Self::Key, value: &str) -> Self;
    fn finish(self) -> object_store::Result<Arc<dyn ObjectStore>>;
}

macro_rules! builders {
    ($($builder:ty: $key:ty),*) => {$(
        impl Builder for $builder {
            type Key = $key;
            fn with(self, key: $key, value: &str) -> Self {
                self.with_config(key, value)
            }
            fn finish(self) -> object_store::Result<Arc<dyn ObjectStore>> {
                Ok(Arc::new(self.build()?))
            }
        }
    )*};
}
builders!(AmazonS3Builder: AmazonS3ConfigKey, GoogleCloudStorageBuilder: GoogleConfigKey, MicrosoftAzureBuilder: AzureConfigKey);

fn built<B: Builder>(builder: B, options: &BTreeMap<String, String>) -> object_store::Result<Arc<dyn ObjectStore>> {
    let known = options
        .iter()
        .filter_map(|(name, value)| Some((name.parse::<B::Key>().ok()?, value)));
    known.fold(builder, |builder, (key, value)| builder.with(key, value)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(urls: &[&str]) -> Vec<Url> {
        urls.iter().map(|url| Url::parse(url).unwrap()).collect()
    }

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_name_that_is_suggested_is_one_that_the_crate_knows() {
        for service in Service::ALL {
            for name in service.names() {
                assert!(service.knows(name), "{service:?} {name}");
            }
        }
    }

    #[test]
    fn a_name_is_right_where_a_table_lies_whose_store_knows_it() {
        let cases: [(&str, &[&str], &str); 8] = [
            ("aws_region", &["s3://b/l"], ""),
            ("aws_regoin", &["s3://b/l"], "not an option of S3; did you mean `aws_region`?"),
            ("AWS_REGION", &["s3://b/l"], "did you mean `aws_region`?"),
            ("timeot", &["gs://b/l"], "did you mean `timeout`?"),
            ("google_bucket", &["s3://b/l"], "not an option of S3"),
            ("google_bucket", &["s3://b/l", "gs://b/t"], ""),
            ("azure_storage_account_name", &["file:///l"], ""),
            ("nonsense", &["file:///l"], "not an option of S3 or Google's store or Azure's store"),
        ];
        for (name, urls, says) in cases {
            let said = wrong_name(name, &places(urls)).unwrap_or_default();
            assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{name}: {said}");
        }
    }

    #[test]
    fn every_value_that_a_store_does_not_take_is_told_by_its_name() {
        let keys = [("aws_access_key_id", "a"), ("aws_secret_access_key", "s"), ("google_base_url", "x")];
        let lake = places(&["s3://bucket/lake"]);
        assert_eq!(wrong_values(&options(&keys), &lake), []);
        let broken = [("aws_allow_http", "maybe"), ("timeout", "soon"), ("aws_conditional_put", "never")];
        let found = wrong_values(&options(&[&keys[..], &broken].concat()), &lake);
        let names: std::collections::BTreeSet<_> = found.iter().filter_map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, ["aws_allow_http", "aws_conditional_put", "timeout"].into(), "{found:?}");
        assert!(found.iter().any(|(_, why)| why.contains("maybe")), "{found:?}");
        let lacks = wrong_values(&options(&keys[1..]), &lake);
        let secret = Some("aws_secret_access_key".to_owned());
        assert_eq!(lacks, [(secret, "there is no `aws_access_key_id`".to_owned())]);
        let no_account = wrong_values(&options(&[("timeout", "5s")]), &places(&["az://container/lake"]));
        assert!(no_account.len() == 1 && no_account[0].0.is_none(), "{no_account:?}");
    }
}
