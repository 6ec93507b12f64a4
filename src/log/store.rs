//! Object stores by URL, each rooted at its table, and what their errors mean to an operator.

pub mod options;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload};
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::log::durable::DurableStore;
use options::{Environment, Service};

/// S3's words for a token that has run out, or is none: it says so with a 400, as of any bad request.
const DENIED_CODES: [&str; 2] = ["<Code>ExpiredToken</Code>", "<Code>InvalidToken</Code>"];
/// The services' words for a bucket or container that is not there, whatever is asked of it.
const MISSING_CODES: [&str; 2] = ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"];
const MAKE_IT: &str = "its bucket or container does not exist; make it, or correct the URL";
/// The client's words for a request by http:// that nobody allowed: it is never sent.
const PLAIN_REFUSED: &str = "URL scheme is not allowed";
/// Where the services' machines ask for credentials that nobody has given them.
const METADATA_SERVERS: [&str; 2] = ["http://169.254.169.254", "http://metadata.google.internal"];

/// The store of a URL (`file://`, `s3://`, `gs://`, `az://`, `abfss://`), rooted at the URL. Options by the names that the `object_store`
/// crate gives them: others are for tables at other places ([`options::wrong_name`] tells those that are nobody's). Those of the environment
/// count too, after the given ones.
pub fn open(url: &Url, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>> {
    let wrong = |e: object_store::Error| {
        Error::config(
            "bad_location",
            format!("cannot open a store for {url}: check its URL and `[storage]`"),
        )
        .because(e)
    };
    if url.scheme() == "file" {
        let folder = local_folder(url)?;
        let prefix = Path::from_absolute_path(&folder).map_err(|e| wrong(e.into()))?;
        return Ok(Arc::new(PrefixStore::new(DurableStore::default(), prefix)));
    }
    let (_, prefix) = ObjectStoreScheme::parse(url).map_err(|e| wrong(e.into()))?;
    let Some(service) = Service::of(url) else {
        let what = format!("alluvium has no store for {url}: use a folder, file://, s3://, gs://, az:// or abfss://");
        return Err(Error::config("bad_location", what));
    };
    let store = service.open(url.as_str(), options, Environment::Counts).map_err(wrong)?;
    Ok(if prefix.as_ref().is_empty() {
        store
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    })
}

fn local_folder(url: &Url) -> Result<PathBuf> {
    url.to_file_path()
        .map_err(|()| Error::config("bad_location", format!("{url} is not a path of this machine")))
}

/// The folder where a table's would be made, if it is not there yet, or what is in its way; any other place as it is. What holds of the one
/// holds of the other, and to look there leaves no folder behind.
pub fn nearest(location: &Url) -> Url {
    let found = || {
        let folder = local_folder(location).ok()?;
        Url::from_directory_path(folder.ancestors().find(|folder| folder.symlink_metadata().is_ok())?).ok()
    };
    match location.scheme() {
        "file" => found().unwrap_or_else(|| location.clone()),
        _ => location.clone(),
    }
}

/// Proves that the store refuses to create a key twice. All that keeps two writers apart rests on this.
pub async fn probe_conditional_put(store: &dyn ObjectStore, place: &str) -> Result<()> {
    let path = Path::from(format!("_alluvium_probe_{}", Uuid::new_v4().simple()));
    let create = || PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    let refuse = |why: String| {
        let what =
            format!("the store of {place} {why}, so two writers could overwrite each other's commits; use a store with conditional puts");
        Error::config("no_conditional_put", what)
    };
    let first = store.put_opts(&path, PutPayload::from_static(b"1"), create()).await;
    let second = match first {
        Ok(_) => store.put_opts(&path, PutPayload::from_static(b"2"), create()).await,
        Err(e) => Err(e),
    };
    let verdict = match second {
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(()),
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
            Err(refuse("cannot put if absent".to_owned()))
        }
        // Only the bucket itself can be missing for a put.
        Err(e @ object_store::Error::NotFound { .. }) => {
            Err(Error::config("store_missing", format!("cannot write to {place}: {MAKE_IT}")).because(e))
        }
        Err(e) => Err(fault(e, &format!("write to {place}"))),
        Ok(_) => Err(refuse("ignores the condition of a put".to_owned())),
    };
    // A probe that stays behind is a byte that the next vacuum takes; it does not change the verdict.
    let _ = store.delete(&path).await;
    verdict
}

/// What an error of a store means, and to whom. `doing` completes "cannot …" and names the place.
pub fn fault(error: object_store::Error, doing: &str) -> Error {
    let io = causes(&error)
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    let said = |code: &&str| causes(&error).any(|cause| cause.to_string().contains(code));
    let denied = matches!(
        error,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
    ) || matches!(io, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
        || DENIED_CODES.iter().any(said);
    let full = matches!(
        io,
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    );
    let no_folder = matches!(io, Some(io::ErrorKind::NotADirectory));
    let (kind, code, advice) = if denied {
        (
            Kind::Config,
            "store_denied",
            "give the process the right to read and write there, or fix the credentials in `[storage]`",
        )
    } else if full {
        (Kind::Transient, "store_full", "free or add space there")
    } else if no_folder {
        (
            Kind::Config,
            "cannot_create",
            "a part of that path is a file, or a link that leads nowhere; remove it, or name another place",
        )
    } else if MISSING_CODES.iter().any(said) {
        (Kind::Config, "store_missing", MAKE_IT)
    } else if said(&PLAIN_REFUSED) {
        (
            Kind::Config,
            "bad_location",
            "the endpoint is http://, which encrypts nothing; name one of https://, or allow it in `[storage]` with `aws_allow_http = \"true\"` \
             (of other stores than S3 `allow_http`)",
        )
    } else if METADATA_SERVERS.iter().any(said) {
        (
            Kind::Transient,
            "store_unreachable",
            "neither `[storage]` nor the environment has credentials, and the machine's metadata server gives none",
        )
    } else {
        (Kind::Transient, "store_unreachable", "check the place and the network")
    };
    Error::new(kind, code, format!("cannot {doing}: {advice}")).because(error)
}

/// What lies below a store's error.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_looked_for_in_the_folder_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let url = |path: &std::path::Path| Url::from_directory_path(path).unwrap();
        let there = url(folder.path());
        assert_eq!(nearest(&url(&folder.path().join("lake/orders"))), there);
        assert_eq!(nearest(&there), there);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        assert_eq!(nearest(&url(&link.join("orders"))), url(&link), "it is in the way");
        let bucket = Url::parse("s3://bucket/lake").unwrap();
        assert_eq!(nearest(&bucket), bucket);
    }

    #[test]
    fn an_error_says_who_acts() {
        let io = |kind: io::ErrorKind| object_store::Error::Generic {
            store: "x",
            source: Box::new(io::Error::from(kind)),
        };
        let denied = object_store::Error::PermissionDenied {
            path: "p".to_owned(),
            source: "403".into(),
        };
        let token = object_store::Error::Unauthenticated {
            path: "p".to_owned(),
            source: "401".into(),
        };
        let expired = object_store::Error::Generic {
            store: "S3",
            source: "400 Bad Request: <Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>".into(),
        };
        let no_bucket = object_store::Error::Generic {
            store: "S3",
            source: "404 Not Found: <Error><Code>NoSuchBucket</Code><BucketName>lake</BucketName></Error>".into(),
        };
        let nobody = object_store::Error::Generic {
            store: "S3",
            source: "Error performing PUT http://169.254.169.254/latest/api/token in 10.2s - HTTP error".into(),
        };
        let error = fault(nobody, "list s3://lake");
        assert!(error.to_string().contains("nor the environment has credentials"), "{error}");
        for (error, kind, code, exit) in [
            (denied, Kind::Config, "store_denied", 77),
            (token, Kind::Config, "store_denied", 77),
            (expired, Kind::Config, "store_denied", 77),
            (no_bucket, Kind::Config, "store_missing", 78),
            (io(io::ErrorKind::PermissionDenied), Kind::Config, "store_denied", 77),
            (io(io::ErrorKind::ReadOnlyFilesystem), Kind::Config, "store_denied", 77),
            (io(io::ErrorKind::StorageFull), Kind::Transient, "store_full", 75),
            (io(io::ErrorKind::QuotaExceeded), Kind::Transient, "store_full", 75),
            (io(io::ErrorKind::FileTooLarge), Kind::Transient, "store_full", 75),
            (io(io::ErrorKind::NotADirectory), Kind::Config, "cannot_create", 73),
            (io(io::ErrorKind::TimedOut), Kind::Transient, "store_unreachable", 69),
        ] {
            let error = fault(error, "write to s3://lake");
            assert_eq!((error.kind, error.code, error.exit_code()), (kind, code, exit));
            assert!(error.to_string().starts_with("cannot write to s3://lake"), "{error}");
        }
    }
}
