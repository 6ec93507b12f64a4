//! Where tables lie: folders and URLs, made absolute.

use std::path::{Component, Path, PathBuf};

use url::Url;

use super::{Config, Secret, Text};

/// The URL schemes of stores that alluvium can write to.
const SCHEMES: [&str; 8] = ["file", "s3", "s3a", "gs", "az", "abfs", "abfss", "adl"];

impl Config {
    /// Makes relative paths absolute: they are relative to `folder`.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        let path = |path: &mut PathBuf| *path = folder.join(&*path);
        let place = |place: &mut String| {
            if !place.contains("://") && !place.is_empty() && !is_of_home(place) {
                *place = folder.join(&*place).to_string_lossy().into_owned();
            }
        };
        let secret = |secret: &mut Secret| {
            if let Secret::File(file) = secret {
                *file = folder.join(&*file);
            }
        };
        let text = |text: &mut Text| {
            if let Text::Secret(inner) = text {
                secret(inner);
            }
        };
        path(&mut self.state);
        self.lake.iter_mut().for_each(place);
        self.storage.values_mut().for_each(text);
        for pipeline in self.pipelines.values_mut() {
            let mut tls = Vec::new();
            if let Some(kafka) = &mut pipeline.kafka {
                kafka.options.values_mut().for_each(text);
                kafka.sasl.iter_mut().for_each(|sasl| secret(&mut sasl.password));
                tls.extend(&mut kafka.tls);
            }
            if let Some(postgres) = &mut pipeline.postgres {
                postgres.password.iter_mut().for_each(secret);
                tls.extend(&mut postgres.tls);
            }
            for tls in tls {
                [&mut tls.ca, &mut tls.certificate, &mut tls.key]
                    .into_iter()
                    .flatten()
                    .for_each(path);
                tls.key_password.iter_mut().for_each(secret);
            }
            pipeline.dead_letters.location.iter_mut().for_each(place);
            for table in pipeline.tables.values_mut() {
                table.schema.iter_mut().for_each(path);
                table.location.iter_mut().for_each(place);
            }
        }
    }

    /// Where the table `name` lies, given its own `location`; the text says what is wrong.
    pub fn table_url(&self, name: &str, location: Option<&str>) -> Result<Url, String> {
        match (location, &self.lake) {
            (Some(location), _) => url_of(location),
            (None, Some(lake)) if lake.contains("://") || lake.is_empty() => {
                let mut url = url_of(lake)?;
                // Whatever would end a path in the text of a URL is part of a name here.
                let segments = url.path_segments_mut();
                segments
                    .map_err(|()| format!("`{lake}` has no folders"))?
                    .pop_if_empty()
                    .extend(name.split('/'));
                Ok(url)
            }
            (None, Some(lake)) => url_of(&format!("{}/{name}", lake.trim_end_matches('/'))),
            (None, None) => Err(format!(
                "no place for the table: set `lake`, and it lies at `<lake>/{name}`, or give it a `location`"
            )),
        }
    }
}

/// The URL of a folder or URL as people write them.
pub fn url_of(place: &str) -> Result<Url, String> {
    let wrong = || {
        format!(
            "`{}` is neither a folder nor a URL of {}",
            shown(place),
            SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
        )
    };
    if place.is_empty() {
        return Err("an empty text names no place: `.` is the folder that a place is relative to".to_owned());
    }
    if is_of_home(place) {
        return Err(format!(
            "`{place}`: only a shell knows what `~` stands for: write the folder out (or `./~`, if that is its name)"
        ));
    }
    if place.contains("://") {
        let url = Url::parse(place).map_err(|_| wrong())?;
        if !url.username().is_empty() && !url.scheme().starts_with("abfs") || url.password().is_some() || url.query().is_some() {
            // The text is not shown: part of it is a secret.
            return Err(
                "a secret in the open: a place is named without user, password and query; credentials stand in `[storage]`".to_owned(),
            );
        }
        if url.fragment().is_some() {
            return Err("a URL with `#` names no place, for a store never sees what follows it: write %23 for that character".to_owned());
        }
        return if SCHEMES.contains(&url.scheme()) && !url.cannot_be_a_base() {
            Ok(url)
        } else {
            Err(wrong())
        };
    }
    let absolute = std::path::absolute(place).map_err(|_| wrong())?;
    Url::from_directory_path(without_dots(&absolute)).map_err(|()| wrong())
}

fn is_of_home(place: &str) -> bool {
    place == "~" || place.starts_with("~/")
}

/// A text that may be a URL, as a message shows it: whatever could be a secret in it is not shown, whether it can be parsed or not.
pub(super) fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let without_query = |text: &str| match text.split_once('?') {
        Some((before, _)) => format!("{before}?***"),
        None => text.to_owned(),
    };
    let rest = match rest.rsplit_once('@') {
        // A part of a query, or of a password with such a letter.
        Some((hidden, _)) if hidden.contains('?') => "***".to_owned(),
        Some((_, behind)) => format!("***@{}", without_query(behind)),
        None => without_query(rest),
    };
    format!("{scheme}://{rest}")
}

/// A path without `..`: the folder above is the one where a link leads to.
fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        if part == Component::ParentDir {
            so_far = real(&so_far);
            so_far.pop();
        } else {
            so_far.push(part);
        }
        so_far
    })
}

/// The same place for all names of it: links are followed as far as there is something.
pub(super) fn place_of(url: &Url) -> String {
    let place = match url.to_file_path() {
        Ok(path) if url.scheme() == "file" => real(&path).to_string_lossy().into_owned(),
        _ => url.as_str().replacen("s3a://", "s3://", 1),
    };
    format!("{}/", place.trim_end_matches('/'))
}

fn real(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        (found, ..) => found.unwrap_or_else(|_| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_urls_become_urls() {
        assert_eq!(url_of("/lake/orders").unwrap().as_str(), "file:///lake/orders/");
        assert!(url_of("lake").unwrap().as_str().ends_with("/lake/"));
        assert_eq!(url_of("/lake/a b").unwrap().as_str(), "file:///lake/a%20b/");
        assert_eq!(url_of("s3://bucket/lake/orders").unwrap().as_str(), "s3://bucket/lake/orders");
        assert_eq!(url_of("/lake/./config/../orders").unwrap().as_str(), "file:///lake/orders/");
        assert!(url_of("ftp://host/lake").unwrap_err().contains("`ftp://host/lake`"));
        assert!(url_of("abfss://container@account.dfs.core.windows.net/lake").is_ok());
    }

    #[test]
    fn no_part_of_a_place_is_dropped_and_an_empty_one_is_none() {
        for place in ["s3://bucket/x#y", "s3://bucket/x#", "file:///x#y"] {
            let what = url_of(place).unwrap_err();
            assert!(what.contains("%23"), "{place}: {what}");
        }
        for place in ["s3://bucket/x?y", "file:///x?y", "", "~", "~/lake"] {
            assert!(url_of(place).is_err(), "{place}");
        }
        assert!(url_of("./~/lake").unwrap().as_str().ends_with("/~/lake/"));
        assert_eq!(url_of("/x#y?z").unwrap().as_str(), "file:///x%23y%3Fz/");
        assert_eq!(
            url_of("file:///x%23y").unwrap().to_file_path().unwrap(),
            Path::new("/x#y"),
            "as a URL says it"
        );
    }

    #[test]
    fn x1_a_secret_in_a_url_is_refused_and_not_shown() {
        for place in ["s3://key:canary@bucket/lake", "s3://canary@bucket/lake", "az://lake/t?sig=canary"] {
            let what = url_of(place).unwrap_err();
            assert!(what.contains("secret in the open") && !what.contains("canary"), "{what}");
        }
    }

    #[test]
    fn x1_a_secret_in_what_is_no_url_is_not_shown() {
        for (place, seen) in [
            ("s3://key:canary@bucket:port/lake", "s3://***@bucket:port/lake"),
            ("s3://key:ca/canary@b ucket/lake", "s3://***@b ucket/lake"),
            ("s3://key:x@canary@bucket:port/lake", "s3://***@bucket:port/lake"),
            ("az://lake:port/t?sig=canary", "az://lake:port/t?***"),
            ("az://lake:port/t?sig=x@canary", "az://***"),
            ("s3://k:x?canary@bucket:port/lake", "s3://***"),
        ] {
            let what = url_of(place).unwrap_err();
            assert!(!what.contains("canary"), "{place}: {what}");
            assert_eq!(shown(place), seen);
        }
        assert_eq!(shown("/lake/a@b?c"), "/lake/a@b?c", "a folder");
    }

    #[test]
    fn a_link_leads_to_the_same_place_and_the_folder_above_is_the_one_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let (deep, link) = (folder.path().join("a/deep"), folder.path().join("link"));
        std::fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(&deep, &link).unwrap();
        let place = |path: &Path| place_of(&url_of(&path.to_string_lossy()).unwrap());
        assert_eq!(place(&deep.join("new/t")), place(&link.join("new/t")));
        assert_eq!(place(&folder.path().join("a/t")), place(&link.join("../t")));
    }
}
