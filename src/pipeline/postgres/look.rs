//! What a run would find: `alluvium check` for a database. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::as_text;
use super::columns::in_types_of_server;
use super::relations::Relations;
use super::told::must_be_told;
use super::unmatched::Unmatched;
use super::{Fed, PostgresFeed, PostgresToDelta, holds};
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Lsn};
use crate::sources::postgres::again::Held;
use crate::sources::postgres::catalog::{Identity, PgTable};
use crate::sources::postgres::connection::{self, Control};
use crate::sources::postgres::preflight::{self, Problem, Wanted};
use crate::sources::postgres::publishing::{self, Lacking};
use crate::sources::postgres::slot::{self, Lag, Slot};
use crate::sources::postgres::timeline::{self, System};
use crate::sources::postgres::types::Types;
use crate::sources::postgres::{Holds, catalog, set_back};
use crate::table::{Mode, Table, TableId};

/// What may be meant: a table of inserts needs no identity, a publication need not tell all, and a slot in use is that of a running service.
const ADVICE: [&str; 3] = ["table_identity", "publication_partial", "slot_active"];

/// What a look at the database tells.
pub struct Found {
    /// How far the slot is behind the server, if there is one.
    pub lag: Option<Lag>,
    /// What stands in the way, and what only some will want to change.
    pub problems: Vec<Problem>,
    pub advice: Vec<Problem>,
    /// The tables of the publication that are asked for; or why one cannot be followed.
    pub tables: Vec<(TableId, Result<Table>)>,
    /// Tables that a run puts into the publication first. Why it stops some of them then is said of the Delta tables that they feed.
    pub unpublished: Vec<ToPublish>,
    /// What `follow` asks for in vain.
    pub unmatched: Unmatched,
    /// What the tables hold is in this lane.
    pub lane: Lane,
    sources: BTreeMap<TableId, PgTable>,
    types: Types,
    slot: Option<Slot>,
    slot_name: String,
    database: String,
    is_made: bool,
    knows_failover: bool,
    /// None where something stands in the way of asking.
    system: Option<System>,
    control: Control,
}

/// A table that a run puts into the publication.
pub struct ToPublish {
    pub table: Lacking,
    /// It can be followed then.
    pub is_copied: bool,
}

impl PostgresToDelta {
    /// Looks at the database, and changes nothing.
    pub async fn look(&self) -> Result<Found> {
        let postgres = &self.feeds.postgres;
        let (slot_name, publication) = (postgres.slot_name(&self.resolved.name), self.publication_name());
        let control = connection::control(&self.address).await?;
        let (candidates, selection) = (catalog::candidates(&control).await?, self.feeds.selection());
        let followed = candidates.iter().filter(|(schema, table)| selection.follows(schema, table));
        let named = self.feeds.named.iter().map(|feed| (feed.schema.clone(), feed.table.clone()));
        let named: BTreeSet<(String, String)> = named.collect();
        let wanted = Wanted {
            publication: publication.clone(),
            slot: slot_name.clone(),
            tables: followed.chain(&named).cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            copies: true,
            two_phase: postgres.two_phase,
            create: postgres.create,
        };
        let mut facts = preflight::gather(&control, &wanted).await?;
        // One that a pattern took may be gone by now.
        facts
            .tables
            .retain(|table| table.found.is_some() || named.contains(&(table.schema.clone(), table.name.clone())));
        let (mut advice, mut problems) = preflight::problems(&facts, &wanted)
            .into_iter()
            .partition::<Vec<_>, _>(|problem| ADVICE.contains(&problem.code));
        let system = match System::of(&self.address).await {
            Ok(system) => Some(system),
            Err(error) if problems.is_empty() || error.code == connection::POOLER => return Err(error),
            // Some of the problems stand in the way of replication sessions: they are told, with what helps.
            Err(_) => None,
        };
        let identifier = system.as_ref().map(|system| system.identifier.to_string()).unwrap_or_default();
        let lane = Lane::new(format!("{slot_name}@{identifier}"));
        let (published, types) = (catalog::tables(&control, &publication).await?, catalog::types(&control).await?);
        let mut unpublished = Vec::new();
        if postgres.create {
            let refused = preflight::refusals(&facts, &publication);
            let is_empty = |table: &&preflight::Table| table.found.as_ref().is_some_and(|found| !found.has_columns);
            let empty = facts
                .tables
                .iter()
                .filter(is_empty)
                .map(|table| (table.schema.clone(), table.name.clone()));
            let empty: BTreeSet<(String, String)> = empty.collect();
            unpublished = publishing::State::of(&control, &publication, &selection).await?.lacking;
            // Others are among the problems.
            unpublished.retain(|table| {
                let name = table.pair();
                table.unidentified.obstacle.is_none() && !refused.contains_key(&name) && !empty.contains(&name)
            });
        }
        let feeds = self.feeds.fed_by(&published)?;
        if feeds.is_empty() && unpublished.is_empty() && problems.is_empty() {
            problems.push(self.nothing_to_follow(&publication));
        }
        let unmatched = self.feeds.unmatched(&candidates, &published, &self.address.database);
        let sources = feeds.iter().map(|(feed, source)| (feed.id.clone(), source.clone()));
        let sources = sources.collect();
        let others = self.feeds.fed_by(&as_published(&control, &publication, &unpublished).await?)?;
        let fed_by = |(feed, source)| Looked::at(self, feed, source, &types, &lane);
        let fed: Vec<Looked> = feeds.into_iter().map(fed_by).collect();
        let others: Vec<Looked> = others.into_iter().map(fed_by).collect();
        let followed = fed
            .iter()
            .chain(&others)
            .filter_map(|looked| Some(&looked.fed.as_ref().ok()?.followed));
        advice.extend(as_text::advice(&as_text::of_followed(followed)));
        let told = |fed: Fed| must_be_told(&fed.followed, &fed.source, &publication).map(|()| fed.table);
        let mut tables: Vec<(TableId, Result<Table>)> = fed.into_iter().map(|looked| (looked.id, looked.fed.and_then(told))).collect();
        let mut copied = BTreeSet::new();
        for Looked { id, source, fed } in others {
            match fed.and_then(told) {
                Ok(_) => {
                    copied.insert(source);
                }
                Err(wrong) => tables.push((id, Err(wrong))),
            }
        }
        let to_publish = |table: Lacking| ToPublish {
            is_copied: copied.contains(&table.pair()),
            table,
        };
        let unpublished = unpublished.into_iter().map(to_publish).collect();
        Ok(Found {
            lag: slot::lag(&control, &slot_name).await?,
            problems,
            advice,
            tables,
            sources,
            types,
            unpublished,
            unmatched,
            slot: slot::find(&control, &slot_name).await?,
            slot_name,
            database: self.address.database.clone(),
            is_made: postgres.create,
            knows_failover: slot::knows_failover(facts.version, facts.standby),
            system,
            lane,
            control,
        })
    }

    /// The publication is there, and none of its tables is asked for.
    pub(super) fn nothing_to_follow(&self, publication: &str) -> Problem {
        let asked = self.feeds.postgres.follow.join(", ");
        let publication = connection::identifier(publication);
        Problem {
            code: "not_published",
            what: format!("The publication {publication} has none of the tables that `follow` asks for ({asked})"),
            fix: format!("Run: ALTER PUBLICATION {publication} ADD TABLE …; or correct the names"),
        }
    }
}

/// A Delta table, the schema and the name of what feeds it, and what comes of that.
struct Looked {
    id: TableId,
    source: (String, String),
    fed: Result<Fed>,
}

impl Looked {
    fn at(opener: &PostgresToDelta, feed: PostgresFeed, source: PgTable, types: &Types, lane: &Lane) -> Self {
        Self {
            source: (source.schema.clone(), source.name.clone()),
            fed: opener.fed_by(&feed, source, types, lane),
            id: feed.id,
        }
    }
}

/// Tables as a run has them when it has published them: what nothing identifies is identified by all of its columns then.
async fn as_published(control: &Control, publication: &str, lacking: &[Lacking]) -> Result<Vec<PgTable>> {
    let names: Vec<(String, String)> = lacking.iter().map(Lacking::pair).collect();
    let identified: BTreeSet<&String> = lacking.iter().flat_map(|table| &table.unidentified.tables).collect();
    let mut tables = catalog::unpublished(control, publication, &names).await?;
    for table in &mut tables {
        if identified.contains(&connection::qualified(&table.schema, &table.name)) {
            table.identity = Identity::Full;
        }
    }
    Ok(tables)
}

impl Found {
    /// The slot, for a person. Of one that is not there, [`Found::continues`] says whether a run makes it.
    pub fn slot(&self) -> String {
        let name = &self.slot_name;
        match &self.slot {
            Some(slot) => format!("slot `{name}` at {}", Lsn(slot.confirmed)),
            None => format!("no slot `{name}`"),
        }
    }

    /// Names in `follow` that no table ever had. `kept`: what the dead-letter table holds.
    pub fn mistakes(&self, kept: &Checkpoint) -> Vec<Problem> {
        self.unmatched.mistakes(&Relations::of(kept).gone(&self.lane))
    }

    /// A difference between a table, which has these properties, and its source, as a person knows the types.
    pub fn explained(&self, difference: Error, table: &TableId, properties: &BTreeMap<String, String>) -> Error {
        match self.sources.get(table) {
            Some(source) => in_types_of_server(difference, properties, source, &self.types),
            None => difference,
        }
    }

    /// Whether the server has what the tables lack, and what they hold; what a run does for it. `marks`: what each table holds; `kept`: what the
    /// dead-letter table does. Both were read behind the look, while others may have gone on.
    pub async fn continues(&self, marks: &[(&Table, Checkpoint)], kept: &Checkpoint) -> Result<Option<String>> {
        let (mut held, mut relations) = (Vec::new(), Relations::of(kept));
        for (table, marks) in marks {
            // Which server this is may not be known yet.
            let named = marks.named(self.lane.name()).map(|(lane, _)| lane.clone());
            let lane = named.filter(|_| self.system.is_none()).unwrap_or_else(|| self.lane.clone());
            let Holds::UpTo(at) = holds(marks, &lane, table)? else { continue };
            let source = self.sources.get(&table.id);
            // A table that is copied again needs nothing of what was before.
            let is_another = source.map_or(Ok(false), |source| relations.is_another(&lane, table, source, true))?;
            if !is_another {
                held.push(Held {
                    table: table.id.as_str(),
                    at,
                    only_grows: table.mode == Mode::Append,
                });
            }
        }
        // What the server has, it has by now. Where its slot begins, it did before the tables were read.
        let end = catalog::end_of_wal(&self.control).await?;
        let slot = slot::find(&self.control, &self.slot_name).await?.map(|now| Slot {
            confirmed: self.slot.as_ref().map_or(0, |slot| slot.confirmed),
            ..now
        });
        if let Some(system) = &self.system {
            system.check(kept.get(&timeline::lane(&self.lane)), held.iter().copied())?;
            if let Some(slot) = &slot {
                set_back::check(slot, system.seen(kept, &self.lane), held.iter().copied())?;
            }
        }
        match (&slot, &self.system) {
            (Some(slot), Some(_)) => slot::check(slot, &self.database, &held, end).map(|()| None),
            (Some(_), None) => Ok(None),
            (None, _) if held.is_empty() && self.is_made => Ok(Some(format!("slot `{}` will be made", self.slot_name))),
            (None, _) => Err(slot::missing(&self.slot_name, &held, self.knows_failover)),
        }
    }
}
