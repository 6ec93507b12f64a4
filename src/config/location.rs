//! Where tables lie: folders and URLs, made absolute.

use std::path::{Path, PathBuf};

use url::Url;

use super::{Config, Secret, Text};

/// The URL schemes of stores that alluvium can write to.
const SCHEMES: [&str; 8] = ["file", "s3", "s3a", "gs", "az", "abfs", "abfss", "adl"];

impl Config {
    /// Makes relative paths absolute: they are relative to `folder`.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        let path = |path: &mut PathBuf| *path = folder.join(&*path);
        let place = |place: &mut String| {
            if !place.contains("://") {
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
            (None, Some(lake)) if lake.contains("://") => {
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
            "`{place}` is neither a folder nor a URL of {}",
            SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
        )
    };
    if place.contains("://") {
        let url = Url::parse(place).map_err(|_| wrong())?;
        return if SCHEMES.contains(&url.scheme()) && !url.cannot_be_a_base() {
            Ok(url)
        } else {
            Err(wrong())
        };
    }
    let absolute = std::path::absolute(place).map_err(|_| wrong())?;
    Url::from_directory_path(absolute).map_err(|()| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_urls_become_urls() {
        assert_eq!(url_of("/lake/orders").unwrap().as_str(), "file:///lake/orders/");
        assert_eq!(url_of("/lake/a b").unwrap().as_str(), "file:///lake/a%20b/");
        assert_eq!(url_of("s3://bucket/lake/orders").unwrap().as_str(), "s3://bucket/lake/orders");
        assert!(url_of("ftp://host/lake").unwrap_err().contains("`ftp://host/lake`"));
    }
}
