//! Puts the tables into the publication that are asked for (`create = true`): at the start, and at each look.
//!
//! What keeps one table out keeps out none of the others. One that belongs to somebody else is refused, and told of with what its owner or a
//! superuser can run; one that is in use is tried again at the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::catalog::candidates;
use super::connection::{Control, identifier, qualified};
use super::identity::{self, Obstacle, Unidentified};
use super::preflight::{self, Publication};
use super::publication::{self, Kind, Shown};
use super::selection::Selection;
use crate::error::{Error, Kind as ErrorKind, Result};

/// Schema and name of a table.
type Name = (String, String);

/// A table that is wanted, and that the publication has neither by itself nor in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    pub schema: String,
    pub table: String,
    /// What needs an identity, or another one, before the table is published: else the server refuses UPDATE and DELETE of it.
    pub unidentified: Unidentified,
}

impl Lacking {
    /// As statements name it.
    pub fn name(&self) -> String {
        qualified(&self.schema, &self.table)
    }

    pub fn pair(&self) -> Name {
        (self.schema.clone(), self.table.clone())
    }
}

/// A publication, and what is asked for.
pub struct State {
    /// None where it is not there.
    kind: Option<Kind>,
    published: BTreeMap<Name, Shown>,
    /// By schema and name.
    pub lacking: Vec<Lacking>,
}

impl State {
    pub async fn of(control: &Control, publication: &str, selection: &Selection) -> Result<Self> {
        // In this order: what another makes between two answers is asked for in vain, or seen. In the other one it would seem to have nothing.
        let named = publication::named(control, publication).await?;
        let published = publication::published(control, publication).await?;
        let kind = publication::kind(control, publication).await?;
        if kind.is_none() && !(named.is_empty() && published.is_empty()) {
            let what = format!("the publication {} was dropped while it was looked at", identifier(publication));
            return Err(Error::transient("publication_missing", what));
        }
        let lacking = match kind {
            Some(Kind { all_tables: true, .. }) => Vec::new(),
            _ => {
                let mut wanted = candidates(control).await?;
                wanted.retain(|table| selection.wants(&table.0, &table.1) && !published.contains_key(table) && !named.contains(table));
                lacking(control, publication, wanted, has_changes(kind)).await?
            }
        };
        Ok(Self { kind, published, lacking })
    }
}

/// Whether it tells updates or deletes: only then the server refuses them of what has no identity. One that is yet to be made does.
fn has_changes(kind: Option<Kind>) -> bool {
    kind.is_none_or(|kind| kind.changes)
}

async fn lacking(control: &Control, publication: &str, wanted: Vec<Name>, has_changes: bool) -> Result<Vec<Lacking>> {
    let mut unidentified = match has_changes {
        true => identity::unidentified(control, publication, &wanted).await?,
        false => BTreeMap::new(),
    };
    let each = wanted.into_iter().map(|table| {
        let unidentified = unidentified.remove(&table).unwrap_or_default();
        let (schema, table) = table;
        Lacking {
            schema,
            table,
            unidentified,
        }
    });
    Ok(each.collect())
}

/// A table that could not be published, and why.
#[derive(Debug)]
pub struct Unpublished {
    pub schema: String,
    pub table: String,
    pub why: Error,
}

/// What could not be published.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Until somebody does something.
    pub refused: Vec<Unpublished>,
    /// For the moment.
    pub later: Vec<Unpublished>,
    /// What the publication shows now.
    pub published: BTreeMap<Name, Shown>,
}

impl Outcome {
    /// Fails where nothing can be done for any table: the server is gone.
    fn add(&mut self, table: &Lacking, why: Error) -> Result<()> {
        if matches!(why.code, "postgres_unreachable" | "postgres_busy") {
            return Err(why);
        }
        let is_refused = why.kind != ErrorKind::Transient;
        let one = Unpublished {
            schema: table.schema.clone(),
            table: table.table.clone(),
            why,
        };
        if is_refused {
            self.refused.push(one);
        } else {
            warn!(table = table.name(), error = %one.why, "not published yet: it is tried again at the next look");
            self.later.push(one);
        }
        Ok(())
    }

    /// The tables that somebody has to do something for.
    pub fn names(&self) -> BTreeSet<Name> {
        let each = self.refused.iter().map(|one| (one.schema.clone(), one.table.clone()));
        each.collect()
    }
}

/// Publishes what is asked for. What it knows of the tables outlives the flows.
#[derive(Clone, Debug)]
pub struct Publisher {
    publication: Arc<str>,
    selection: Arc<Selection>,
    /// What a table that only a pattern asks for gets to be given a key: as a rule it gets one soon after it was made.
    patience: Duration,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Somebody was told what keeps them out.
    told: BTreeSet<Name>,
    /// Nothing identifies their rows: since when that is known.
    unidentified: BTreeMap<Name, Instant>,
    /// What there was at the start is published as it is.
    has_begun: bool,
}

impl Publisher {
    pub fn new(publication: &str, selection: Selection, patience: Duration) -> Self {
        Self {
            publication: publication.into(),
            selection: Arc::new(selection),
            patience,
            known: Arc::default(),
        }
    }

    /// Makes the publication where it is missing, and adds what is wanted and not in it: without those that inherit from it. What is in it by then
    /// has an identity, or is told of.
    pub async fn publish(&self, control: &Control) -> Result<Outcome> {
        let State { kind, published, lacking } = State::of(control, &self.publication, &self.selection).await?;
        let mut outcome = Outcome {
            published,
            ..Outcome::default()
        };
        for (table, obstacle) in lacking.iter().filter_map(|table| Some((table, table.unidentified.obstacle?))) {
            let why = self.barred(table, obstacle);
            if self.selection.names(&table.schema, &table.table) {
                outcome.add(table, why)?;
            } else if self.known().told.insert(table.pair()) {
                warn!(error = %why, "not published");
            }
        }
        let due = self.due(lacking, kind.is_some());
        if due.is_empty() && kind.is_none() {
            let what = "the database has none of the tables that the configuration asks for";
            return Err(Error::config("not_published", what));
        }
        if !due.is_empty() {
            self.put_in(control, due, kind.is_some(), &mut outcome).await?;
            outcome.published = publication::published(control, &self.publication).await?;
        }
        if has_changes(kind) {
            let published: Vec<Name> = outcome.published.keys().cloned().collect();
            identity::of_published(control, &self.publication, &published).await?;
        }
        Ok(outcome)
    }

    /// Puts these into the publication, each with an identity; it is made first where it is not there.
    async fn put_in(&self, control: &Control, due: Vec<Lacking>, exists: bool, outcome: &mut Outcome) -> Result<()> {
        let names = due.iter().map(Lacking::pair).collect();
        let mut facts = preflight::facts(control, &self.publication, names).await?;
        if !exists {
            if let Some(problem) = preflight::not_made(&facts, &self.publication) {
                return Err(problem.error());
            }
            let name = identifier(&self.publication);
            let make = format!("CREATE PUBLICATION {name} WITH (publish_via_partition_root = true)");
            control.batch_execute(&make).await?;
            facts.publication = Some(Publication::made());
        }
        let mut refusals = preflight::refusals(&facts, &self.publication);
        let mut ready = Vec::new();
        for table in due {
            let identified = match refusals.remove(&table.pair()) {
                Some(problem) => Err(problem.error()),
                None => self.identify(control, &table).await,
            };
            match identified {
                Ok(()) => ready.push(table),
                Err(why) => outcome.add(&table, why)?,
            }
        }
        self.add_all(control, ready, outcome).await
    }

    /// Those to publish now.
    fn due(&self, lacking: Vec<Lacking>, exists: bool) -> Vec<Lacking> {
        let (now, mut known) = (Instant::now(), self.known());
        let names: BTreeSet<Name> = lacking.iter().map(Lacking::pair).collect();
        known.told.retain(|name| names.contains(name));
        known.unidentified.retain(|name, _| names.contains(name));
        let waits = exists && known.has_begun;
        known.has_begun = true;
        let is_due = |table: &Lacking| {
            if table.unidentified.obstacle.is_some() {
                return false;
            }
            if table.unidentified.tables.is_empty() || !waits || self.selection.names(&table.schema, &table.table) {
                return true;
            }
            let since = *known.unidentified.entry(table.pair()).or_insert(now);
            now.duration_since(since) >= self.patience
        };
        lacking.into_iter().filter(is_due).collect()
    }

    /// Why a table is not published. One that is named stops by it; of the others, the log tells it once.
    fn barred(&self, table: &Lacking, obstacle: Obstacle) -> Error {
        let (name, publication, why) = (table.name(), identifier(&self.publication), obstacle.why());
        let what = format!(
            "{name} is not put into the publication {publication}, for it {why}, and the server would refuse UPDATE and DELETE of it: alluvium \
             check tells what helps"
        );
        Error::config("not_published", what)
    }

    /// Gives a table an identity, if it has none.
    async fn identify(&self, control: &Control, table: &Lacking) -> Result<()> {
        let unidentified = &table.unidentified;
        if unidentified.tables.is_empty() {
            return Ok(());
        }
        identity::identify(control, unidentified).await?;
        let (publication, tables) = (&*self.publication, unidentified.tables.join(", "));
        warn!(
            publication,
            tables,
            "set to REPLICA IDENTITY FULL, for nothing identifies their rows, and the server would refuse UPDATE and DELETE of what is published so"
        );
        Ok(())
    }

    /// All together, for that is quick. Where it fails, each by itself.
    async fn add_all(&self, control: &Control, tables: Vec<Lacking>, outcome: &mut Outcome) -> Result<()> {
        if tables.len() > 1 && self.add(control, &tables).await.is_ok() {
            return Ok(());
        }
        for table in tables {
            if let Err(why) = self.add(control, std::slice::from_ref(&table)).await {
                outcome.add(&table, why)?;
            }
        }
        Ok(())
    }

    async fn add(&self, control: &Control, tables: &[Lacking]) -> Result<()> {
        let each: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.name())).collect();
        let (name, tables) = (identifier(&self.publication), each.join(", "));
        // Nobody reads the stream meanwhile.
        let add = format!("SET LOCAL lock_timeout = '1s'; ALTER PUBLICATION {name} ADD TABLE {tables}");
        control.alter(&add).await?;
        info!(publication = &*self.publication, tables, "published");
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, tables: &[&str]) -> Lacking {
        Lacking {
            schema: "s".to_owned(),
            table: name.to_owned(),
            unidentified: Unidentified {
                tables: tables.iter().map(|name| (*name).to_owned()).collect(),
                ..Unidentified::default()
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_comes_without_a_key_is_given_the_time_to_get_one() {
        let named = [("s".to_owned(), "named".to_owned())];
        let selection = Selection::new(named, [("s".to_owned(), "*".to_owned())]);
        let publisher = Publisher::new("p", selection, Duration::from_secs(30));
        let due = |tables: &[Lacking]| -> Vec<String> { publisher.due(tables.to_vec(), true).into_iter().map(|one| one.table).collect() };
        let (keyed, loose) = (table("keyed", &[]), table("loose", &["s.loose"]));
        assert_eq!(
            due(&[table("old", &["s.old"])]),
            ["old"],
            "at the start all that is there is published"
        );
        let later = [keyed, loose.clone(), table("named", &["s.named"])];
        assert_eq!(due(&later), ["keyed", "named"]);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(due(std::slice::from_ref(&loose)).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(due(std::slice::from_ref(&loose)), ["loose"]);
        // It was gone meanwhile, and this is another one of its name.
        assert!(due(&[]).is_empty());
        assert!(due(std::slice::from_ref(&loose)).is_empty());
        assert_eq!(publisher.due(vec![loose], false).len(), 1, "the publication is made anew");
    }
}
