//! A table as it is opened: what it holds, and whether that has to be copied again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::columns::{Origins, in_types_of_server, known_columns, untold_values};
use super::holds::holds;
use super::relations::Relations;
use super::told::must_be_told;
use super::{Fed, PostgresToDelta};
use crate::error::{Error, Result};
use crate::log::{FORGOTTEN, Log};
use crate::pipeline::doubling::must_be_new;
use crate::position::Lane;
use crate::sinks::Sink;
use crate::sinks::delta::DeltaSink;
use crate::sources::postgres::catalog::PgTable;
use crate::sources::postgres::connection::Control;
use crate::sources::postgres::types::Types;
use crate::sources::postgres::{Feed, preflight};
use crate::table::{Mode, Table};

impl PostgresToDelta {
    /// A table and what it holds, told to be copied again where what it holds is not what the server has.
    pub(super) async fn open_table(
        &mut self,
        fed: Fed,
        lane: &Lane,
        types: &Types,
        relations: &mut Relations,
        share: usize,
    ) -> Result<(Arc<Table>, DeltaSink, Feed)> {
        let Fed {
            source,
            followed,
            mut table,
        } = fed;
        // One that is not there yet is made with its copy, and of these columns.
        let now = Origins::of(&source);
        table.properties.extend([now.property()?]);
        let told = must_be_told(&followed, &source, &self.publication_name());
        let store = self.tables.store(&table.location).await?;
        let mut sink = match self.tables.sink(&table, Arc::clone(&store), share).await {
            Ok(sink) => sink,
            Err(error) => {
                let log = Log::open(&table.location, store, &self.resolved.name).await?;
                let properties = log.map(|log| log.snapshot().properties.clone()).unwrap_or_default();
                return Err(self.of_table(in_types_of_server(error, &properties, &source, types), &table.id));
            }
        };
        // It does not stop alone: the others would move the slot on, which the pipeline that wrote it may still need.
        must_be_new(&self.resolved.name, &table, [(lane, 0)], &sink.log().snapshot().marks)?;
        let kept = Origins::kept(&sink.log().snapshot().properties, table.id.as_str());
        let kept = kept.map_err(|error| self.of_table(error, &table.id))?;
        let is_copied = sink.checkpoint().get(lane).is_some_and(|at| at != FORGOTTEN);
        let is_another = relations.is_another(lane, &table, &source, is_copied);
        let is_another = is_another.map_err(|error| error.alone(&table.id))?;
        let why = if !is_copied {
            None
        } else if is_another {
            Some("it was dropped and made anew, or was out of the publication for a while")
        } else {
            self.why_again(&sink, &kept, &source, &table, told.is_ok())
        };
        let known = known_columns(&sink, &kept, &source);
        let now = if is_copied && why.is_none() { kept.and(now) } else { now };
        if why.is_some() || now != kept {
            sink.close();
            let mut log = Log::open_or_create(&table.location, Arc::clone(&store), &table, &self.resolved.name).await?;
            if let Some(why) = why {
                warn!(table = %table.id, why, "it is copied again");
                log.forget(lane).await?;
                self.learned.is_to_be_copied(&table.id);
            }
            if now != kept {
                log.set_properties(BTreeMap::from([now.property()?])).await?;
            }
            sink = self.tables.sink(&table, store, share).await?;
        }
        if told.is_err() && table.mode != Mode::Append {
            self.untold.insert(table.id.clone());
        }
        told.map_err(|error| self.of_table(error, &table.id))?;
        let holds = holds(sink.checkpoint(), lane, &table)?;
        let feed = Feed {
            source,
            followed,
            holds,
            known,
            marks: Vec::new(),
        };
        Ok((Arc::new(table), sink, feed))
    }

    /// Why a table that holds a copy of its source has to be copied again. One that only grows stays as it is: its log says so. `is_told`: the
    /// publication tells all that it is made of.
    fn why_again(&self, sink: &DeltaSink, kept: &Origins, source: &PgTable, table: &Table, is_told: bool) -> Option<&'static str> {
        let grows = table.mode == Mode::Append;
        let untold = untold_values(sink, kept, source, table).join("`, `");
        if grows && !untold.is_empty() {
            warn!(table = %table.id, "`{untold}` came with values, or has another name or type: it only grows, and rows that are there stay as they are");
        }
        if !grows && !untold.is_empty() {
            Some("it has columns that its rows have values in, which no change tells")
        } else if !grows && !is_told {
            Some("the publication leaves out changes of it")
        } else {
            self.learned.again(&table.id)
        }
    }

    /// Tables that are to be copied and may not be read. Each stops alone.
    pub(super) async fn denied(&self, control: &Control, publication: &str, feeds: &[Feed]) -> Result<Vec<Error>> {
        let name = |feed: &Feed| (feed.source.schema.clone(), feed.source.name.clone());
        let to_copy = || feeds.iter().filter(|feed| feed.held().is_none());
        let denials = preflight::denials(control, publication, &self.address.user, to_copy().map(name).collect()).await?;
        let denied = to_copy().filter_map(|feed| Some(denials.get(&name(feed))?.error().alone(&feed.followed.id)));
        Ok(denied.collect())
    }
}
