//! Values as people write them: sizes, times, lists, secrets.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// A string or a list of strings.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        }
    }
}

/// A size as people write it: `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Bytes(#[schemars(with = "String", extend("format" = "size"))] pub u64);

impl Bytes {
    /// The number of bytes, where the machine can count so far.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // A bare number would be taken as bytes: nobody means 64 bytes by "64".
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ');
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if !unit.is_empty() => Ok(Self(size.as_u64())),
            _ => Err(format!("`{text}` is not a size: write it like \"64 MiB\"")),
        }
    }
}

/// A time as people write it: `"5 s"`, `"250 ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Span(#[schemars(with = "String", extend("format" = "time"))] pub Duration);

impl Span {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a time: write it like \"5 s\" or \"250 ms\""))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A secret by reference: `{ env = "NAME" }` or `{ file = "/path" }`. Its value is read where it is needed and never kept, and it prints
/// as `***`.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The name of an environment variable.
    Env(String),
    /// A file; line ends at its end are not part of the secret.
    File(PathBuf),
}

impl Secret {
    /// The value. Errors name the variable or the file, never what is in it.
    pub fn reveal(&self) -> Result<String> {
        let wrong = |what: String| Error::config("secret_missing", what);
        let (value, of) = match self {
            Secret::Env(name) => {
                let value =
                    std::env::var(name).map_err(|_| wrong(format!("the environment variable `{name}` is not set, or not UTF-8")))?;
                (value, format!("the environment variable `{name}`"))
            }
            Secret::File(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|e| wrong(format!("the secret file {} cannot be read", path.display())).because(e))?;
                (
                    text.trim_end_matches(['\r', '\n']).to_owned(),
                    format!("the secret file {}", path.display()),
                )
            }
        };
        // A line end within a value could add an option of its own where values are put into texts.
        match value.contains(['\r', '\n', '\0']) {
            true => Err(wrong(format!("{of} holds more than one line"))),
            false if value.is_empty() => Err(wrong(format!("{of} is empty"))),
            false => Ok(value),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A text in the open, or a secret by reference. A number, true and false may stand without quotes.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    Plain(
        #[serde(deserialize_with = "Scalar::text")]
        #[schemars(with = "Scalar")]
        String,
    ),
    Secret(Secret),
}

/// What may be written for a text in the open.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl Scalar {
    fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        Ok(match Self::deserialize(from)? {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        })
    }
}

impl Text {
    /// The value, of a secret as well.
    pub fn reveal(&self) -> Result<String> {
        match self {
            Text::Plain(text) => Ok(text.clone()),
            Text::Secret(secret) => secret.reveal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(Bytes::parse("64 MiB"), Ok(Bytes(64 << 20)));
        assert_eq!(Bytes::parse("1GB"), Ok(Bytes(1_000_000_000)));
        assert_eq!(Span::parse("250 ms"), Ok(Span(Duration::from_millis(250))));
        for wrong in ["64", "", "much", "-1 MiB", "64 MiX"] {
            assert!(Bytes::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["5", "", "soon", "-5 s"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_and_a_truth_are_texts_without_quotes() {
        let texts: Vec<Text> = serde_json::from_str(r#"["6000", 6000, -1, true, {"env": "NAME"}]"#).unwrap();
        let plain = ["6000", "6000", "-1", "true"].map(|text| Text::Plain(text.to_owned()));
        assert_eq!(texts[..4], plain);
        assert_eq!(texts[4], Text::Secret(Secret::Env("NAME".to_owned())));
        assert!(serde_json::from_str::<Text>("[1]").is_err());
    }

    #[test]
    fn x1_a_secret_prints_as_stars_and_loses_only_its_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, " canary \r\n").unwrap();
        let secret = Text::Secret(Secret::File(path.clone()));
        assert_eq!(secret.reveal().unwrap(), " canary ");
        assert_eq!(format!("{secret:?}"), "Secret(***)");

        std::fs::write(&path, "canary\nssl.ca.location=/tmp/x").unwrap();
        let refused = secret.reveal().unwrap_err().to_string();
        assert!(refused.contains("more than one line") && !refused.contains("canary"), "{refused}");
    }
}
