//! The options of a Postgres database.

use schemars::JsonSchema;
use serde::Deserialize;

use url::Url;

use super::{Secret, Span, Tls};

/// A Postgres database and how to follow it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgresql://user@host:port/database`. The password stands in `password`.
    pub url: String,
    pub password: Option<Secret>,
    /// Talk TLS to the server and believe it only with a certificate of its host's name; an empty table is enough where the system trusts
    /// its authority.
    pub tls: Option<Tls>,
    /// Tables to follow, beside those that `tables` of the pipeline names: `schema.table`, with `*` for any characters. Each becomes
    /// the Delta table `schema.table` at `<lake>/<schema>/<table>`. A name with a dot in it stands in double quotes: `"a.b".*`.
    #[serde(default)]
    pub follow: Vec<String>,
    /// The replication slot. Default: `alluvium_<pipeline>`.
    pub slot: Option<String>,
    /// The publication. Default: `alluvium_<pipeline>`.
    pub publication: Option<String>,
    /// Make the publication and the slot where they are missing, and put the tables into the publication that are asked for: at the start, and
    /// within `discovery` what is made later. A table whose rows nothing identifies (no primary key, no replica identity) is set to REPLICA
    /// IDENTITY FULL first: else the server would refuse UPDATE and DELETE of it, to everybody. Without this option, `alluvium check` prints
    /// the SQL.
    #[serde(default)]
    pub create: bool,
    /// Read transactions when they are prepared (PREPARE TRANSACTION), and show them when they are committed: large ones are there sooner. While
    /// one stays prepared, the server keeps its WAL from the PREPARE on, and a start reads from there. Without it, they are read when they are
    /// committed. A slot that was once read so stays so. PostgreSQL 15 and newer.
    #[serde(default)]
    pub two_phase: bool,
    /// How often to look for tables that were added to the publication, or with `create` are to be.
    #[serde(default = "super::default_discovery")]
    pub discovery: Span,
    /// What becomes of a row with a value that its column cannot hold, like an infinite date: a dead letter, or a null in its place.
    #[serde(default)]
    pub special_values: SpecialValues,
    /// Connections that copy a table at the same time.
    #[serde(default = "default_copy_connections")]
    pub copy_connections: u32,
}

/// What becomes of a value that its column cannot hold.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SpecialValues {
    /// Its row is a dead letter.
    #[default]
    DeadLetter,
    /// It is null.
    Null,
}

/// How the changes of a Postgres table become rows.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TableMode {
    /// One row per key: the row as it stands in Postgres.
    Upsert,
    /// Every change is a row.
    Append,
}

/// Where a database is, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// A name, an address, or the folder of a unix socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub name: String,
}

impl Postgres {
    /// The parts of the URL, or what is wrong with it.
    pub fn database(&self) -> Result<Database, String> {
        const FORM: &str = "write postgresql://USER@HOST:PORT/DATABASE";
        let url = Url::parse(&self.url).map_err(|error| format!("not a URL: {error}; {FORM}"))?;
        if !["postgresql", "postgres"].contains(&url.scheme()) {
            return Err(format!("`{}` is not the scheme of a Postgres server; {FORM}", url.scheme()));
        }
        if url.password().is_some() {
            return Err("a secret in the open: take the password out, and write it as `password = { env = \"NAME\" }`".to_owned());
        }
        if let Some((name, _)) = url.query_pairs().next() {
            return Err(format!(
                "`{name}`: options do not stand in the URL; TLS is `[pipelines.NAME.postgres.tls]`"
            ));
        }
        let decoded = |part: &str| percent_decoded(part).ok_or_else(|| format!("`{part}` is not percent-encoded UTF-8; {FORM}"));
        let (user, name) = (decoded(url.username())?, decoded(url.path().trim_start_matches('/'))?);
        let host = decoded(url.host_str().unwrap_or_default())?;
        match [("user", &user), ("host", &host), ("database", &name)]
            .iter()
            .find(|(_, part)| part.is_empty())
        {
            Some((part, _)) => Err(format!("no {part}; {FORM}")),
            None => Ok(Database {
                // Of an IPv6 address the brackets belong to the URL.
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: url.port().unwrap_or(5432),
                user,
                name,
            }),
        }
    }

    /// The slot's name: that of the options, or by the pipeline's.
    pub fn slot_name(&self, pipeline: &str) -> String {
        self.slot.clone().unwrap_or_else(|| default_name(pipeline))
    }

    pub fn publication_name(&self, pipeline: &str) -> String {
        self.publication.clone().unwrap_or_else(|| default_name(pipeline))
    }
}

/// `alluvium_<pipeline>` in the letters that a slot's name may have.
fn default_name(pipeline: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = "alluvium_".chars().chain(pipeline.chars().map(legal)).collect();
    name.chars().take(63).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The two parts of `schema.table`. Names with a dot in them are written in double quotes, as in SQL.
pub fn schema_and_table(text: &str) -> Option<(String, String)> {
    let (schema, rest) = identifier(text)?;
    let (table, rest) = identifier(rest.strip_prefix('.')?)?;
    rest.is_empty().then_some((schema, table))
}

/// One name, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, rest)),
        }
    }
}

fn default_copy_connections() -> u32 {
    // Two keep a server's disk and our decoding busy; more would be felt by the server's other clients.
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(url: &str) -> Result<Database, String> {
        let config = format!("url = '{url}'");
        toml::from_str::<Postgres>(&config).unwrap().database()
    }

    #[test]
    fn a_url_names_the_database_and_no_secret() {
        let parts = |host: &str, port, user: &str, name: &str| Database {
            host: host.into(),
            port,
            user: user.into(),
            name: name.into(),
        };
        let cases = [
            ("postgresql://me@db.example:6543/shop", parts("db.example", 6543, "me", "shop")),
            ("postgres://me%40corp@10.0.0.1/a%20b", parts("10.0.0.1", 5432, "me@corp", "a b")),
            ("postgresql://me@[::1]:5432/shop", parts("::1", 5432, "me", "shop")),
            (
                "postgresql://me@%2Frun%2Fpostgresql/shop",
                parts("/run/postgresql", 5432, "me", "shop"),
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(database(url), Ok(expected), "{url}");
        }
        let refused = [
            ("mysql://me@h/d", "`mysql` is not the scheme"),
            ("postgresql://me:hush@h/d", "a secret in the open"),
            ("postgresql://me@h/d?sslmode=disable", "`sslmode`: options do not stand"),
            ("postgresql://me@h", "no database"),
            ("postgresql://h/d", "no user"),
            ("host=h", "not a URL"),
        ];
        for (url, why) in refused {
            let said = database(url).unwrap_err();
            assert!(said.contains(why) && !said.contains("hush"), "{url}: {said}");
        }
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let cases = [
            ("public.orders", Some(("public", "orders"))),
            ("public.*", Some(("public", "*"))),
            (r#""a.b"."c""d""#, Some(("a.b", "c\"d"))),
            ("orders", None),
            ("a.b.c", None),
            (r#""a.b"#, None),
            (r#"a."""#, None),
            (".b", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(schema, table)| (schema.to_owned(), table.to_owned()));
            assert_eq!(schema_and_table(text), expected, "{text}");
        }
    }

    #[test]
    fn names_by_the_pipeline_are_names_that_a_slot_may_have() {
        assert_eq!(default_name("Shop-1.eu"), "alluvium_shop_1_eu");
        assert_eq!(default_name(&"x".repeat(80)).len(), 63);
    }
}
