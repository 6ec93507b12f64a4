//! What lies between the options of databases.

use std::collections::BTreeMap;

use super::{Check, SPAN_MAX, TOO_LONG};
use crate::config::pattern::{is_pattern, overlap};
use crate::config::postgres::schema_and_table;
use crate::config::{Format, KeyFrom, KeyPath, Merge, OnUnknownRow, Postgres, Table, TableCommit, TableMode, Tombstones};

/// More connections only compete for one disk.
const COPY_CONNECTIONS_MAX: u32 = 32;

impl Check<'_> {
    pub(super) fn postgres(&mut self, at: &KeyPath, postgres: &Postgres) {
        if let Err(what) = postgres.database() {
            self.wrong(at.key("url"), what);
        }
        if let Some(password) = &postgres.password {
            self.secret(&at.key("password"), password);
        }
        if let Some(tls) = &postgres.tls {
            self.tls(&at.key("tls"), tls);
            self.wrong_if(
                tls.key_password.is_some(),
                at.key("tls").key("key_password"),
                "keys with a password are not read here: name one without, in a file that only alluvium may read",
            );
        }
        // As Postgres has them.
        let slot = postgres.slot.as_deref().unwrap_or("alluvium");
        let legal = (1..=63).contains(&slot.len()) && slot.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        self.wrong_if(
            !legal,
            at.key("slot"),
            "slots have names of at most 63 small letters, digits and `_`",
        );
        let publication = postgres.publication.as_deref().unwrap_or("alluvium");
        let legal = (1..=63).contains(&publication.len()) && !publication.contains('\0');
        self.wrong_if(!legal, at.key("publication"), "publications have names of 1 to 63 bytes");
        self.distinct(&at.key("follow"), &postgres.follow);
        for (index, name) in postgres.follow.iter().enumerate() {
            self.wrong_if(
                schema_and_table(name).is_none(),
                at.key("follow").index(index),
                &written("write SCHEMA.TABLE, as in public.orders or public.*", name),
            );
        }
        self.wrong_if(
            postgres.discovery.0.is_zero(),
            at.key("discovery"),
            "0 would ask the server without a pause",
        );
        self.wrong_if(postgres.discovery.0 > SPAN_MAX, at.key("discovery"), TOO_LONG);
        self.wrong_if(
            !(1..=COPY_CONNECTIONS_MAX).contains(&postgres.copy_connections),
            at.key("copy_connections"),
            "write 1 to 32: each is a connection of the server, and reads its disk",
        );
    }

    pub(super) fn postgres_table(&mut self, at: &KeyPath, table: &Table) {
        match table.table.as_deref() {
            None => self.wrong(
                at.key("table"),
                "missing: name the Postgres table that feeds it, as in public.orders",
            ),
            Some(name) => self.wrong_if(
                schema_and_table(name).is_none() || is_pattern(name),
                at.key("table"),
                &written("write SCHEMA.TABLE, as in public.orders", name),
            ),
        }
        let alone = "only with `kafka` as the source";
        self.wrong_if(table.topic.is_some(), at.key("topic"), alone);
        self.wrong_if(table.topic_pattern.is_some(), at.key("topic_pattern"), alone);
        self.wrong_if(table.format != Format::default(), at.key("format"), alone);
        self.wrong_if(table.schema.is_some(), at.key("schema"), alone);
        self.wrong_if(table.key_from != KeyFrom::default(), at.key("key_from"), alone);
        self.wrong_if(table.tombstones != Tombstones::default(), at.key("tombstones"), alone);
        self.wrong_if(table.on_unknown_row != OnUnknownRow::default(), at.key("on_unknown_row"), alone);
        let together = "the tables of a database are published together: set it in the pipeline's `commit`";
        self.wrong_if(table.commit != TableCommit::default(), at.key("commit"), together);
        let append = table.mode == Some(TableMode::Append);
        let alone = "not with `mode = \"append\"`";
        self.wrong_if(append && !table.key.is_empty(), at.key("key"), alone);
        self.wrong_if(append && table.merge != Merge::default(), at.key("merge"), alone);
        let alone = "only with `mode = \"append\"`";
        self.wrong_if(!append && !table.partition_by.is_empty(), at.key("partition_by"), alone);
    }

    /// No two pipelines follow tables that would lie at one place: where one lies follows from its name, whatever the database.
    pub(super) fn follows(&mut self) {
        let mut seen: Vec<((String, String), KeyPath)> = Vec::new();
        for (name, pipeline) in &self.config.pipelines {
            let at = KeyPath::of(["pipelines", name]).key("postgres").key("follow");
            let patterns = pipeline.postgres.iter().flat_map(|postgres| &postgres.follow).enumerate();
            let own = patterns.filter_map(|(index, pattern)| Some((schema_and_table(pattern)?, at.index(index))));
            let own: Vec<_> = own.collect();
            for ((schema, table), at) in &own {
                let takes_same = |((schemas, tables), _): &&((String, String), KeyPath)| overlap(schema, schemas) && overlap(table, tables);
                if let Some((_, first)) = seen.iter().find(takes_same) {
                    let what = format!(
                        "tables that `{first}` may name, too, and both would lie at <lake>/SCHEMA/TABLE: write the file of another `lake`"
                    );
                    self.wrong(at.clone(), what);
                }
            }
            seen.extend(own);
        }
    }

    /// No two pipelines read one slot: each would get a part of the changes. Slots are the server's, whatever the database.
    pub(super) fn slots(&mut self) {
        let mut slots: BTreeMap<(String, u16, String), KeyPath> = BTreeMap::new();
        for (name, pipeline) in &self.config.pipelines {
            let at = KeyPath::of(["pipelines", name]).key("postgres").key("slot");
            let Some(postgres) = &pipeline.postgres else { continue };
            let Ok(server) = postgres.database() else { continue };
            let slot = postgres.slot_name(name);
            if let Some(first) = slots.insert((server.host, server.port, slot.clone()), at.clone()) {
                self.wrong(at, format!("`{first}` is the same slot, `{slot}`: name another one"));
            }
        }
    }
}

/// How a table is written; where a schema's name seems to have a dot in it, also how that one is.
fn written(how: &str, name: &str) -> String {
    match name
        .rsplit_once('.')
        .filter(|(schema, _)| schema.contains('.') && !name.contains('"'))
    {
        Some((schema, table)) => format!(r#"{how}; a name with a dot in it stands in double quotes: '"{schema}".{table}'"#),
        None => how.to_owned(),
    }
}
